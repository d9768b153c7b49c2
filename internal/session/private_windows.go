package session

import "os"

// isOurs leaves to the system who may read what is in the user's own folders.
func isOurs(os.FileInfo) bool { return true }
