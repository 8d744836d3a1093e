package daemon

import (
	"fmt"

	"vmcryptfs/cryptoblk"
	"vmcryptfs/keys"
	"vmcryptfs/words"
)

// fewFiles is how many encrypted files a limit on locked memory must have room for, not to be
// told of: a host's guests have hundreds of disks.
const fewFiles = 1000

// memoryWarning says how many files can be open, and how to allow more. The warning is empty where
// the limit on locked memory has room for fewFiles.
func memoryWarning() string {
	files, bytes, limited, err := keys.MostFiles(cryptoblk.ScheduleSize)
	switch {
	case err != nil:
		return err.Error()
	case !limited || files >= fewFiles:
		return ""
	}
	return fmt.Sprintf("only %d encrypted files can be open at once, others give ENOMEM: keys lie in locked memory, of which this process may have %s; set LimitMEMLOCK=infinity in the systemd unit or ulimit -l unlimited, and mount again",
		files, words.Size(int64(bytes)))
}
