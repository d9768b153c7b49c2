package attack

import (
	"os"
	"strconv"

	"golang.org/x/sys/unix"
)

// stepBack gives this process the lowest priority: an attacker has a machine of his own, and is not to take ours from
// the nodes.
func stepBack() {
	tasks, _ := os.ReadDir("/proc/self/task")
	for _, task := range tasks { // threads to come inherit it
		if id, err := strconv.Atoi(task.Name()); err == nil {
			_ = unix.Setpriority(unix.PRIO_PROCESS, id, 19)
		}
	}
}
