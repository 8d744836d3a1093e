// Package kmip is the KMIP client: kms.toml, framing, mutual TLS, sessions and a
// provider's servers. It implements keys.Provider for KMIP 1.0 to 1.4 and 2.0.
//
// A provider is one KMS of one to eight servers that hold the same keys. A request
// goes to the one that failed longest ago; one that refuses, hangs, talks nonsense or
// gives a wrong key is left for the next, and one that does not answer at all is asked
// first again only after a probe in the background saw it answer. A request that may be
// repeated is sent once more on a fresh session when an idle one turns out to be dead;
// Create is not repeated: after a lost answer the client looks for the name it chose, and
// believes the attributes of what it finds, not the search.
//
// Final, so that no other server is asked, are success, that the key is destroyed (its
// state says so, or the reason of a refusal: no key comes back from that, so a server that
// says otherwise lags), and that the name of a new key is taken (one that lags would take
// it twice). All else is about one server. Where none gives the key, the answer is the one
// that tells most, with what each said: see precedence. That a key is not found is
// believed when every server that can be reached says so.
//
// Nothing a server sends is trusted: see keys/kmip/wire. Keys travel only in buffers
// of this package, which are wiped, and leave it in locked memory. Errors wrap the
// sentinels of package keys and say server, operation and reason, never a key.
//
// Providers are safe for concurrent use.
package kmip
