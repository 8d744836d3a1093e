package kmip_test

import (
	"context"
	"crypto/rand"
	"fmt"
	"maps"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	ovh "github.com/ovh/kmip-go"
	"github.com/ovh/kmip-go/kmipserver"
	"github.com/ovh/kmip-go/payloads"

	"vmcryptfs/keys/kmip"
)

// The foreign server stands on github.com/ovh/kmip-go, a stack without a line in common with
// ours, and misbehaves on request (trouble_test.go).

// A vault is the keys of one or several foreign servers.
type vault struct {
	mu   sync.Mutex
	last int
	keys map[string]*foreignKey
}

type foreignKey struct {
	name     string
	material []byte
	state    ovh.State
	bits     int32
	made     time.Time
	dates    map[ovh.AttributeName]time.Time // further dates
	more     []ovh.Attribute                 // further attributes
	private  bool                            // Get Attributes is refused
}

func newVault() *vault { return &vault{keys: map[string]*foreignKey{}} }

// edit changes a key under the lock.
func (v *vault) edit(t *testing.T, id string, f func(*foreignKey)) {
	t.Helper()
	v.mu.Lock()
	defer v.mu.Unlock()
	k, ok := v.keys[id]
	if !ok {
		t.Fatalf("no key %q", id)
	}
	f(k)
}

// named counts the keys of a name.
func (v *vault) named(name string) (n int) {
	v.mu.Lock()
	defer v.mu.Unlock()
	for _, k := range v.keys {
		if k.name == name {
			n++
		}
	}
	return n
}

func startForeign(t *testing.T) kmip.Config {
	p := newPKI(t)
	return p.config(t, newForeign(t, p, newVault()).address)
}

// operations are the server's operations, by the rules of KMIP 1.4.
func (f *foreign) operations() *kmipserver.BatchExecutor {
	exec := kmipserver.NewBatchExecutor()
	exec.Route(ovh.OperationQuery, kmipserver.HandleFunc(f.query))
	exec.Route(ovh.OperationCreate, kmipserver.HandleFunc(f.create))
	exec.Route(ovh.OperationRegister, kmipserver.HandleFunc(f.register))
	exec.Route(ovh.OperationActivate, kmipserver.HandleFunc(f.activate))
	exec.Route(ovh.OperationGet, kmipserver.HandleFunc(f.get))
	exec.Route(ovh.OperationGetAttributes, kmipserver.HandleFunc(f.getAttributes))
	exec.Route(ovh.OperationLocate, kmipserver.HandleFunc(f.locate))
	exec.Route(ovh.OperationRevoke, kmipserver.HandleFunc(f.revoke))
	exec.Route(ovh.OperationDestroy, kmipserver.HandleFunc(f.destroy))
	exec.Route(ovh.OperationReKey, kmipserver.HandleFunc(f.rekey))
	return exec
}

// find returns a key, unless this server has not heard of the key yet. Called with the lock held.
func (f *foreign) find(id string) (*foreignKey, error) {
	k, ok := f.vault.keys[id]
	if !ok || f.lags.Load() {
		return nil, kmipserver.ErrItemNotFound
	}
	return k, nil
}

func (f *foreign) query(context.Context, *payloads.QueryRequestPayload) (*payloads.QueryResponsePayload, error) {
	offered := []ovh.Operation{ovh.OperationCreate, ovh.OperationGet, ovh.OperationGetAttributes,
		ovh.OperationActivate, ovh.OperationLocate, ovh.OperationQuery, ovh.OperationDiscoverVersions}
	if !f.noRekey.Load() {
		offered = append(offered, ovh.OperationReKey)
	}
	return &payloads.QueryResponsePayload{Operations: offered}, nil
}

func (f *foreign) create(_ context.Context, r *payloads.CreateRequestPayload) (*payloads.CreateResponsePayload, error) {
	if ovh.Operation(f.clone.Load()) == ovh.OperationCreate {
		return nil, kmipserver.ErrPermissionDenied
	}
	material := make([]byte, 32)
	rand.Read(material)
	id, err := f.add(r.TemplateAttribute.Attribute, material)
	return &payloads.CreateResponsePayload{ObjectType: r.ObjectType, UniqueIdentifier: id}, err
}

func (f *foreign) register(_ context.Context, r *payloads.RegisterRequestPayload) (*payloads.RegisterResponsePayload, error) {
	material, err := r.Object.(*ovh.SymmetricKey).KeyMaterial()
	if err != nil {
		return nil, err
	}
	id, err := f.add(r.TemplateAttribute.Attribute, material)
	return &payloads.RegisterResponsePayload{UniqueIdentifier: id}, err
}

// add keeps a new key if the server accepts all attributes.
func (f *foreign) add(attributes []ovh.Attribute, material []byte) (string, error) {
	f.vault.mu.Lock()
	defer f.vault.mu.Unlock()
	if f.drops.Load() {
		return "", kmipserver.ErrPermissionDenied
	}
	k := &foreignKey{material: slices.Clone(material), state: ovh.StatePreActive, bits: int32(8 * len(material)), made: time.Now().Truncate(time.Second)}
	for _, a := range attributes {
		switch {
		case strings.HasPrefix(string(a.AttributeName), "x-") && f.noCustom.Load():
			return "", kmipserver.Errorf(ovh.ResultReasonInvalidField, "unsupported attribute %s", a.AttributeName)
		case a.AttributeName == ovh.AttributeNameName && f.taken(a):
			return "", kmipserver.Errorf(ovh.ResultReason(f.unique.Load()), "there is one of that name")
		case a.AttributeName == ovh.AttributeNameName && !f.nameless.Load():
			k.name = a.AttributeValue.(ovh.Name).NameValue
		case a.AttributeName == ovh.AttributeNameCryptographicUsageMask && f.wrapOnly.Load():
			if mask := a.AttributeValue.(ovh.CryptographicUsageMask); mask != ovh.CryptographicUsageWrapKey|ovh.CryptographicUsageUnwrapKey {
				return "", kmipserver.Errorf(ovh.ResultReasonInvalidField, "usage mask must be wrap and unwrap")
			}
		}
	}
	f.vault.last++
	id := fmt.Sprint(f.vault.last)
	f.vault.keys[id] = k
	return id, nil
}

// taken reports whether the server wants unique names and has this one.
func (f *foreign) taken(a ovh.Attribute) bool {
	name := a.AttributeValue.(ovh.Name).NameValue
	return f.unique.Load() != 0 && slices.ContainsFunc(slices.Collect(maps.Values(f.vault.keys)), func(k *foreignKey) bool { return k.name == name })
}

func (f *foreign) activate(_ context.Context, r *payloads.ActivateRequestPayload) (*payloads.ActivateResponsePayload, error) {
	f.vault.mu.Lock()
	defer f.vault.mu.Unlock()
	k, err := f.find(r.UniqueIdentifier)
	if err != nil {
		return nil, err
	}
	if k.state != ovh.StatePreActive || ovh.Operation(f.clone.Load()) == ovh.OperationActivate {
		return nil, kmipserver.ErrPermissionDenied
	}
	k.state = ovh.StateActive
	return &payloads.ActivateResponsePayload{UniqueIdentifier: r.UniqueIdentifier}, nil
}

func (f *foreign) get(_ context.Context, r *payloads.GetRequestPayload) (*payloads.GetResponsePayload, error) {
	f.vault.mu.Lock()
	defer f.vault.mu.Unlock()
	k, err := f.find(r.UniqueIdentifier)
	if err != nil {
		return nil, err
	}
	if reason := f.refuses.Load(); reason != 0 {
		return nil, kmipserver.Errorf(ovh.ResultReason(reason), "not from here")
	}
	if ended := k.state == ovh.StateDestroyed || k.state == ovh.StateDestroyedCompromised; f.denies.Load() || ended && !f.givesAll.Load() {
		return nil, kmipserver.ErrPermissionDenied
	}
	material := slices.Clone(k.material)
	return &payloads.GetResponsePayload{ObjectType: ovh.ObjectTypeSymmetricKey, UniqueIdentifier: r.UniqueIdentifier,
		Object: &ovh.SymmetricKey{KeyBlock: ovh.KeyBlock{
			KeyFormatType:          ovh.KeyFormatTypeRaw,
			KeyValue:               &ovh.KeyValue{Plain: &ovh.PlainKeyValue{KeyMaterial: ovh.KeyMaterial{Bytes: &material}}},
			CryptographicAlgorithm: ovh.CryptographicAlgorithmAES, CryptographicLength: k.bits,
		}}}, nil
}

func (f *foreign) getAttributes(_ context.Context, r *payloads.GetAttributesRequestPayload) (*payloads.GetAttributesResponsePayload, error) {
	f.asked.Add(1)
	f.vault.mu.Lock()
	defer f.vault.mu.Unlock()
	k, err := f.find(r.UniqueIdentifier)
	if err != nil {
		return nil, err
	}
	if f.mute.Load() || k.private {
		return nil, kmipserver.ErrPermissionDenied
	}
	all := []ovh.Attribute{
		{AttributeName: ovh.AttributeNameUniqueIdentifier, AttributeValue: r.UniqueIdentifier},
		{AttributeName: ovh.AttributeNameCryptographicAlgorithm, AttributeValue: ovh.CryptographicAlgorithmAES},
		{AttributeName: ovh.AttributeNameCryptographicLength, AttributeValue: k.bits},
		{AttributeName: ovh.AttributeNameState, AttributeValue: k.state},
		{AttributeName: ovh.AttributeNameInitialDate, AttributeValue: k.made},
	}
	for name, date := range k.dates {
		all = append(all, ovh.Attribute{AttributeName: name, AttributeValue: date})
	}
	all = append(all, k.more...)
	if k.name != "" {
		all = append(all, ovh.Attribute{AttributeName: ovh.AttributeNameName,
			AttributeValue: ovh.Name{NameValue: k.name, NameType: ovh.NameTypeUninterpretedTextString}})
	}
	answer := &payloads.GetAttributesResponsePayload{UniqueIdentifier: r.UniqueIdentifier}
	for _, a := range all {
		if len(r.AttributeName) == 0 || slices.Contains(r.AttributeName, a.AttributeName) {
			answer.Attribute = append(answer.Attribute, a)
		}
	}
	return answer, nil
}

func (f *foreign) locate(_ context.Context, r *payloads.LocateRequestPayload) (*payloads.LocateResponsePayload, error) {
	f.vault.mu.Lock()
	defer f.vault.mu.Unlock()
	answer := &payloads.LocateResponsePayload{}
	for id, k := range f.vault.keys {
		for _, a := range r.Attribute {
			name, ok := a.AttributeValue.(ovh.Name)
			hit := name.NameValue == k.name && k.state != ovh.StateDestroyed || f.listsAll.Load()
			if ok && hit && !f.lags.Load() && len(answer.UniqueIdentifier) < int(r.MaximumItems) {
				answer.UniqueIdentifier = append(answer.UniqueIdentifier, id)
			}
		}
	}
	return answer, nil
}

func (f *foreign) revoke(_ context.Context, r *payloads.RevokeRequestPayload) (*payloads.RevokeResponsePayload, error) {
	f.vault.mu.Lock()
	defer f.vault.mu.Unlock()
	k, err := f.find(r.UniqueIdentifier)
	if err != nil {
		return nil, err
	}
	k.state = ovh.StateDeactivated
	if r.RevocationReason.RevocationReasonCode == ovh.RevocationReasonCodeKeyCompromise {
		k.state = ovh.StateCompromised
	}
	return &payloads.RevokeResponsePayload{UniqueIdentifier: r.UniqueIdentifier}, nil
}

func (f *foreign) destroy(_ context.Context, r *payloads.DestroyRequestPayload) (*payloads.DestroyResponsePayload, error) {
	f.vault.mu.Lock()
	defer f.vault.mu.Unlock()
	k, err := f.find(r.UniqueIdentifier)
	if err != nil {
		return nil, err
	}
	if k.state == ovh.StateActive {
		return nil, kmipserver.ErrPermissionDenied
	}
	k.state, k.material = ovh.StateDestroyed, nil
	return &payloads.DestroyResponsePayload{UniqueIdentifier: r.UniqueIdentifier}, nil
}

func (f *foreign) rekey(_ context.Context, r *payloads.RekeyRequestPayload) (*payloads.RekeyResponsePayload, error) {
	f.vault.mu.Lock()
	k, err := f.find(r.UniqueIdentifier)
	f.vault.mu.Unlock()
	if err != nil {
		return nil, err
	}
	material := make([]byte, 32)
	rand.Read(material)
	id, err := f.add([]ovh.Attribute{{AttributeName: ovh.AttributeNameName, AttributeValue: ovh.Name{NameValue: k.name}}}, material)
	return &payloads.RekeyResponsePayload{UniqueIdentifier: id}, err
}
