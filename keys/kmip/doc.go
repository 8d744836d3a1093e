// Package kmip is the KMIP client: kms.toml, framing, mutual TLS, sessions and a
// provider's servers. It implements keys.Provider for KMIP 1.0 to 1.4 and 2.0.
//
// A provider is one KMS of one to eight servers that hold the same keys. A request
// goes to the one that failed longest ago; one that refuses, hangs or talks nonsense is
// left for the next, and one that does not answer at all is asked first again only
// after a probe in the background saw it answer. A request that may be repeated is sent once more on a fresh session
// when an idle one turns out to be dead; Create is not repeated: after a lost answer
// the client looks for the name it chose. That a key is not found is believed when
// every server that can be reached says so.
//
// Nothing a server sends is trusted: see keys/kmip/wire. Keys travel only in buffers
// of this package, which are wiped, and leave it in locked memory. Errors wrap the
// sentinels of package keys and say server, operation and reason, never a key.
//
// Providers are safe for concurrent use.
package kmip
