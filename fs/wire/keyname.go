package wire

// KeyName is a KEK by provider and KMIP Unique Identifier.
type KeyName struct {
	Provider   string `json:"provider"`
	Identifier string `json:"identifier"`
}
