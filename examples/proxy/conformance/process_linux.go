package main

import (
	"os/exec"
	"syscall"
)

// bind makes the kernel end the program if this process is killed and cannot do it.
func bind(cmd *exec.Cmd) { cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL} }
