package devkms_test

import (
	"bytes"
	"context"
	"path/filepath"
	"slices"
	"testing"

	ovh "github.com/ovh/kmip-go"
	"github.com/ovh/kmip-go/kmipclient"
	"github.com/ovh/kmip-go/payloads"
)

// A foreign client, github.com/ovh/kmip-go, says whether the server keeps to the
// standard.

func dial(t *testing.T, versions ...ovh.ProtocolVersion) *kmipclient.Client {
	t.Helper()
	dir := t.TempDir()
	s := start(t, dir, "")
	options := []kmipclient.Option{
		kmipclient.WithRootCAFile(filepath.Join(dir, "ca.pem")),
		kmipclient.WithClientCertFiles(filepath.Join(dir, "client.pem"), filepath.Join(dir, "client.key")),
	}
	if len(versions) > 0 {
		options = append(options, kmipclient.WithKmipVersions(versions...))
	}
	c, err := kmipclient.DialContext(t.Context(), s.Addr(), options...)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	return c
}

// ask sends a batch of one item and returns payload and result reason.
func ask(t *testing.T, c *kmipclient.Client, payload ovh.OperationPayload) (ovh.OperationPayload, ovh.ResultReason) {
	t.Helper()
	request := ovh.NewRequestMessage(c.Version(), payload)
	answer, err := c.Roundtrip(t.Context(), &request)
	if err != nil {
		t.Fatal(err)
	}
	if len(answer.BatchItem) != 1 {
		t.Fatalf("%d items", len(answer.BatchItem))
	}
	item := answer.BatchItem[0]
	if (item.ResultStatus == ovh.ResultStatusSuccess) != (item.ResultReason == 0) {
		t.Errorf("status %v with reason %v", item.ResultStatus, item.ResultReason)
	}
	return item.ResponsePayload, item.ResultReason
}

func aes256(t *testing.T, c *kmipclient.Client, name string) string {
	t.Helper()
	made, err := c.Create().AES(256, ovh.CryptographicUsageEncrypt|ovh.CryptographicUsageDecrypt).WithName(name).ExecContext(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	return made.UniqueIdentifier
}

// TestForeignLifecycle: a key's life in every version spoken by the foreign client.
func TestForeignLifecycle(t *testing.T) {
	t.Parallel()
	for _, version := range []ovh.ProtocolVersion{ovh.V1_0, ovh.V1_1, ovh.V1_2, ovh.V1_3, ovh.V1_4} {
		t.Run(version.String(), func(t *testing.T) {
			t.Parallel()
			c := dial(t, version)
			ctx := t.Context()
			id := aes256(t, c, "a key")
			state := func(want ovh.State) {
				t.Helper()
				got, err := c.GetAttributes(id, ovh.AttributeNameState).ExecContext(ctx)
				if err != nil || len(got.Attribute) != 1 || got.Attribute[0].AttributeValue != want {
					t.Errorf("%+v, %v; want state %v", got, err, want)
				}
			}
			state(ovh.StatePreActive)
			if _, err := c.Activate(id).ExecContext(ctx); err != nil {
				t.Fatal(err)
			}
			state(ovh.StateActive)
			got, err := c.Get(id).ExecContext(ctx)
			if err != nil {
				t.Fatal(err)
			}
			if key, err := got.SymmetricKey(); err != nil || len(key) != 32 || bytes.Equal(key, make([]byte, 32)) {
				t.Errorf("a key of %d bytes, %v", len(key), err)
			}
			located, err := c.Locate().WithName("a key").ExecContext(ctx)
			if err != nil || !slices.Equal(located.UniqueIdentifier, []string{id}) {
				t.Errorf("located %v, %v", located, err)
			}
			if _, err := c.Revoke(id).WithRevocationReasonCode(ovh.RevocationReasonCodeSuperseded).ExecContext(ctx); err != nil {
				t.Fatal(err)
			}
			state(ovh.StateDeactivated)
			if _, err := c.Destroy(id).ExecContext(ctx); err != nil {
				t.Fatal(err)
			}
			state(ovh.StateDestroyed)
		})
	}
}

// TestForeignRegister: a registered key comes back unchanged, raw or transparent.
func TestForeignRegister(t *testing.T) {
	t.Parallel()
	c := dial(t)
	want := []byte("0123456789abcdef0123456789ABCDEF")
	made, err := c.Register().SymmetricKey(ovh.CryptographicAlgorithmAES, ovh.CryptographicUsageWrapKey, want).ExecContext(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	for _, format := range []ovh.KeyFormatType{0, ovh.KeyFormatTypeRaw, ovh.KeyFormatTypeTransparentSymmetricKey} {
		got, reason := ask(t, c, &payloads.GetRequestPayload{UniqueIdentifier: made.UniqueIdentifier, KeyFormatType: format})
		if reason != 0 {
			t.Fatalf("format %v: %v", format, reason)
		}
		if key, err := got.(*payloads.GetResponsePayload).SymmetricKey(); err != nil || !bytes.Equal(key, want) {
			t.Errorf("format %v: another key, %v", format, err)
		}
	}
}

// TestReasons: the result reasons of refusals (KMIP 1.4 §11).
func TestReasons(t *testing.T) {
	t.Parallel()
	c := dial(t)
	active, destroyed := aes256(t, c, "active"), aes256(t, c, "destroyed")
	if _, err := c.Activate(active).ExecContext(t.Context()); err != nil {
		t.Fatal(err)
	}
	if _, err := c.Destroy(destroyed).ExecContext(t.Context()); err != nil {
		t.Fatal(err)
	}
	template := func(bits int32, more ...ovh.Attribute) ovh.TemplateAttribute {
		return ovh.TemplateAttribute{Attribute: append([]ovh.Attribute{
			{AttributeName: ovh.AttributeNameCryptographicAlgorithm, AttributeValue: ovh.CryptographicAlgorithmAES},
			{AttributeName: ovh.AttributeNameCryptographicLength, AttributeValue: bits},
			{AttributeName: ovh.AttributeNameCryptographicUsageMask, AttributeValue: ovh.CryptographicUsageEncrypt},
		}, more...)}
	}
	superseded := ovh.RevocationReason{RevocationReasonCode: ovh.RevocationReasonCodeSuperseded}
	name := ovh.Attribute{AttributeName: ovh.AttributeNameName, AttributeValue: ovh.Name{NameValue: "active", NameType: ovh.NameTypeUninterpretedTextString}}
	for _, test := range []struct {
		name    string
		payload ovh.OperationPayload
		want    ovh.ResultReason
	}{
		{"get nothing", &payloads.GetRequestPayload{UniqueIdentifier: "none"}, ovh.ResultReasonItemNotFound},
		{"get a path", &payloads.GetRequestPayload{UniqueIdentifier: "../ca"}, ovh.ResultReasonItemNotFound},
		{"get without identifier", &payloads.GetRequestPayload{}, ovh.ResultReasonMissingData},
		{"get what is destroyed", &payloads.GetRequestPayload{UniqueIdentifier: destroyed}, ovh.ResultReasonPermissionDenied},
		{"get another format", &payloads.GetRequestPayload{UniqueIdentifier: active, KeyFormatType: ovh.KeyFormatTypePKCS_8}, ovh.ResultReasonKeyFormatTypeNotSupported},
		{"get compressed", &payloads.GetRequestPayload{UniqueIdentifier: active, KeyCompressionType: 1}, ovh.ResultReasonFeatureNotSupported},
		{"attributes of nothing", &payloads.GetAttributesRequestPayload{UniqueIdentifier: "none"}, ovh.ResultReasonItemNotFound},
		{"attributes of what is destroyed", &payloads.GetAttributesRequestPayload{UniqueIdentifier: destroyed}, 0},
		{"activate nothing", &payloads.ActivateRequestPayload{UniqueIdentifier: "none"}, ovh.ResultReasonItemNotFound},
		{"activate twice", &payloads.ActivateRequestPayload{UniqueIdentifier: active}, ovh.ResultReasonPermissionDenied},
		{"activate what is destroyed", &payloads.ActivateRequestPayload{UniqueIdentifier: destroyed}, ovh.ResultReasonPermissionDenied},
		{"revoke what is destroyed", &payloads.RevokeRequestPayload{UniqueIdentifier: destroyed, RevocationReason: superseded}, ovh.ResultReasonPermissionDenied},
		{"revoke for no reason", &payloads.RevokeRequestPayload{UniqueIdentifier: active, RevocationReason: ovh.RevocationReason{RevocationReasonCode: 99}}, ovh.ResultReasonInvalidField},
		{"destroy what is active", &payloads.DestroyRequestPayload{UniqueIdentifier: active}, ovh.ResultReasonPermissionDenied},
		{"destroy twice", &payloads.DestroyRequestPayload{UniqueIdentifier: destroyed}, ovh.ResultReasonPermissionDenied},
		{"create of 255 bits", &payloads.CreateRequestPayload{ObjectType: ovh.ObjectTypeSymmetricKey, TemplateAttribute: template(255)}, ovh.ResultReasonInvalidField},
		{"create a certificate", &payloads.CreateRequestPayload{ObjectType: ovh.ObjectTypeCertificate, TemplateAttribute: template(256)}, ovh.ResultReasonInvalidField},
		{"create without usage", &payloads.CreateRequestPayload{ObjectType: ovh.ObjectTypeSymmetricKey,
			TemplateAttribute: ovh.TemplateAttribute{Attribute: template(256).Attribute[:2]}}, ovh.ResultReasonMissingData},
		{"create with a name in use", &payloads.CreateRequestPayload{ObjectType: ovh.ObjectTypeSymmetricKey, TemplateAttribute: template(256, name)}, ovh.ResultReasonInvalidField},
		{"create with an attribute that is not kept", &payloads.CreateRequestPayload{ObjectType: ovh.ObjectTypeSymmetricKey,
			TemplateAttribute: template(256, ovh.Attribute{AttributeName: ovh.AttributeNameContactInformation, AttributeValue: "me"})}, ovh.ResultReasonInvalidField},
		{"locate by an attribute that is not kept", &payloads.LocateRequestPayload{Attribute: []ovh.Attribute{
			{AttributeName: ovh.AttributeNameContactInformation, AttributeValue: "me"}}}, ovh.ResultReasonInvalidField},
		{"an operation that is not offered", &payloads.ArchiveRequestPayload{UniqueIdentifier: active}, ovh.ResultReasonOperationNotSupported},
	} {
		t.Run(test.name, func(t *testing.T) {
			if _, reason := ask(t, c, test.payload); reason != test.want {
				t.Errorf("reason %v, want %v", reason, test.want)
			}
		})
	}
}

// TestBatch: items are done in order, the ID Placeholder goes from one item to the next, and a
// failure ends the batch unless the request says to continue.
func TestBatch(t *testing.T) {
	t.Parallel()
	c := dial(t)
	send := func(option ovh.BatchErrorContinuationOption, list ...ovh.OperationPayload) []ovh.ResponseBatchItem {
		t.Helper()
		request := ovh.NewRequestMessage(c.Version(), list...)
		request.Header.BatchErrorContinuationOption = option
		answer, err := c.Roundtrip(context.WithoutCancel(t.Context()), &request)
		if err != nil {
			t.Fatal(err)
		}
		for i, item := range answer.BatchItem {
			if i < len(request.BatchItem) && !bytes.Equal(item.UniqueBatchItemID, request.BatchItem[i].UniqueBatchItemID) {
				t.Errorf("item %d has another identifier", i)
			}
		}
		return answer.BatchItem
	}
	create := &payloads.CreateRequestPayload{ObjectType: ovh.ObjectTypeSymmetricKey, TemplateAttribute: ovh.TemplateAttribute{Attribute: []ovh.Attribute{
		{AttributeName: ovh.AttributeNameCryptographicAlgorithm, AttributeValue: ovh.CryptographicAlgorithmAES},
		{AttributeName: ovh.AttributeNameCryptographicLength, AttributeValue: int32(256)},
		{AttributeName: ovh.AttributeNameCryptographicUsageMask, AttributeValue: ovh.CryptographicUsageEncrypt},
	}}}
	items := send(0, create, &payloads.ActivateRequestPayload{}, &payloads.GetRequestPayload{}, create, &payloads.GetRequestPayload{})
	if len(items) != 5 {
		t.Fatalf("%d items", len(items))
	}
	one, err := items[2].ResponsePayload.(*payloads.GetResponsePayload).SymmetricKey()
	if err != nil {
		t.Fatal(err)
	}
	two, err := items[4].ResponsePayload.(*payloads.GetResponsePayload).SymmetricKey()
	if err != nil || len(two) != 32 || bytes.Equal(one, two) || bytes.Equal(one, make([]byte, 32)) {
		t.Errorf("two keys in one answer are mixed up, %v", err)
	}

	missing := &payloads.GetRequestPayload{UniqueIdentifier: "none"}
	if items := send(ovh.BatchErrorContinuationOptionStop, missing, create); len(items) != 1 {
		t.Errorf("%d items after a failure, want 1", len(items))
	}
	if items := send(ovh.BatchErrorContinuationOptionContinue, missing, create); len(items) != 2 || items[1].ResultStatus != ovh.ResultStatusSuccess {
		t.Errorf("a batch that is to go on ended: %+v", items)
	}
	if items := send(ovh.BatchErrorContinuationOptionUndo, create); items[0].ResultReason != ovh.ResultReasonFeatureNotSupported {
		t.Errorf("undo: %v", items[0].ResultReason)
	}
}

// TestMaximumResponseSize: an answer beyond the client's limit is not sent.
func TestMaximumResponseSize(t *testing.T) {
	t.Parallel()
	c := dial(t)
	id := aes256(t, c, "a key")
	request := ovh.NewRequestMessage(c.Version(), &payloads.GetAttributesRequestPayload{UniqueIdentifier: id})
	request.Header.MaximumResponseSize = 300
	answer, err := c.Roundtrip(t.Context(), &request)
	if err != nil {
		t.Fatal(err)
	}
	if reason := answer.BatchItem[0].ResultReason; reason != ovh.ResultReasonResponseTooLarge {
		t.Errorf("reason %v, want %v", reason, ovh.ResultReasonResponseTooLarge)
	}
}
