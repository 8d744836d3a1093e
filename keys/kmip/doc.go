// Package kmip is the KMIP client: kms.toml, framing, mutual TLS, sessions and a provider's
// servers. The client implements keys.Provider for KMIP 1.0 to 1.4 and 2.0.
//
// A provider is one KMS of one to eight servers with the same keys. A request goes to the server
// that failed longest ago. A server that refuses, hangs, sends nonsense or gives a wrong key is
// left for the next. A server without any answer is asked first again only after a probe in the
// background got an answer. A repeatable request is sent once more on a fresh session when an
// idle session turns out to be dead. Create is not repeated: after a lost answer the client
// searches for the chosen name, and believes the attributes of each key found, not the search.
//
// Three answers are final, so no other server is asked: success; the key is destroyed; the name
// of a new key is taken. A key is destroyed by its state or by the reason of a refusal: no key
// comes back from destruction, so a server with another answer lags. A lagging server would also
// take a name twice. All other answers concern one server. Where no server gives the key, the
// answer is the most telling one, with the answers of all: see precedence. "Not found" is
// believed when every reachable server says so.
//
// Nothing from a server is trusted: see keys/kmip/wire. Keys travel only in buffers of this
// package, which are wiped, and leave the package in locked memory. Errors wrap the sentinels of
// package keys and name server, operation and reason, never a key.
//
// Providers are safe for concurrent use.
package kmip
