// Package admin is the control socket of one mount: JSON over HTTP on a Unix socket named after
// the datastore's id. Clients are the program's own commands, monitoring, and people with curl
// --unix-socket.
//
//	GET  /v1/mount    describe the mount: Mount
//	GET  /v1/status   everything at a glance: Status
//	GET  /v1/health   is all well? Health, with 200 if so and 503 if not
//	GET  /v1/files    one JSON line for each regular file (File), then one Summary
//	POST /v1/lock     wipe the KEKs: LockResult
//	POST /v1/leave    end with the last user of the files, after a lazy unmount
//	POST /v1/remount  RemountRequest: change options of the kernel's
//	GET  /v1/settings the proven settings for a change to begin from: Settings
//	POST /v1/settings SettingsRequest: seal other rules and take them up; SettingsResult
//	GET  /v1/policies what new files of which place get: policy.Listing
//	POST /v1/policies policy.Request: change a policy or a place; policy.Result
//	POST /v1/rekey    rekey.Request; a stream of Line, the summary last
//	POST /v1/unlock   fetch the current KEK again and check the settings' seal
//
// Any other answer of 400 and above is a wire.Error, in which errors.Is finds errors of keys and
// datastore. Only their owner can open the socket and its directory; the server also turns away
// every peer other than the owner and root. No answer holds key material.
//
// Names, paths and JSON keys are a contract; new keys may appear beside the present ones.
// Everything exported is safe for concurrent use.
package admin
