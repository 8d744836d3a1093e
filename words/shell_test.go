package words

import "testing"

func TestCommand(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		words []string
		want  string
	}{
		{nil, ""},
		{[]string{"vmcryptfs", "umount", "/vm/one"}, "vmcryptfs umount /vm/one"},
		{[]string{"mkdir", "-p", "/vm/a b"}, "mkdir -p '/vm/a b'"},
		{[]string{"it's", ""}, `'it'\''s' ''`},
		{[]string{"$HOME", "a;b", "é"}, "'$HOME' 'a;b' 'é'"},
	} {
		if got := Command(c.words); got != c.want {
			t.Errorf("Command(%q) = %s, want %s", c.words, got, c.want)
		}
	}
}
