package devkms

import (
	"fmt"

	"github.com/gemalto/kmip-go/kmip20"

	"vmcryptfs/keys/kmip/wire"
)

// A failure is an answer that says why something was not done. Its words go to the
// client: they never hold a key.
type failure struct {
	reason kmip20.ResultReason
	text   string
}

func (f *failure) Error() string { return f.text }

func failf(reason kmip20.ResultReason, format string, args ...any) *failure {
	return &failure{reason, fmt.Sprintf(format, args...)}
}

// reasonIn is the result reason in the words of version v: KMIP 1.4 §11 gives more
// general ones where 2.0 §11.49 has one of its own.
func (f *failure) reasonIn(v wire.Version) kmip20.ResultReason {
	if v.Major >= 2 {
		return f.reason
	}
	switch f.reason {
	case kmip20.ResultReasonObjectNotFound:
		return kmip20.ResultReasonItemNotFound
	case kmip20.ResultReasonObjectDestroyed, kmip20.ResultReasonWrongKeyLifecycleState:
		return kmip20.ResultReasonPermissionDenied
	case kmip20.ResultReasonNonUniqueNameAttribute, kmip20.ResultReasonUnsupportedAttribute,
		kmip20.ResultReasonInvalidAttributeValue:
		return kmip20.ResultReasonInvalidField
	case kmip20.ResultReasonUnsupportedProtocolVersion:
		return kmip20.ResultReasonInvalidMessage
	case kmip20.ResultReasonInternalServerError:
		return kmip20.ResultReasonGeneralFailure
	}
	return f.reason
}
