package wire

import "encoding/json"

// Paths are paths below BACKING. In JSON each path is the base64 of its bytes.
type Paths []string

// MarshalJSON gives an array of base64; null for nil.
func (p Paths) MarshalJSON() ([]byte, error) {
	var raw [][]byte
	for _, path := range p {
		raw = append(raw, []byte(path))
	}
	return json.Marshal(raw)
}

// UnmarshalJSON reads the form of MarshalJSON.
func (p *Paths) UnmarshalJSON(text []byte) error {
	var raw [][]byte
	if err := json.Unmarshal(text, &raw); err != nil {
		return err
	}
	*p = nil
	for _, path := range raw {
		*p = append(*p, string(path))
	}
	return nil
}
