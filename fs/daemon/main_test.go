package daemon

import (
	"os"
	"testing"

	"vmcryptfs/integration/mounttest"
)

func TestMain(m *testing.M) { os.Exit(mounttest.Main(m.Run)) }
