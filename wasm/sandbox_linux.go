package wasm

import (
	"os"
	"strings"

	seccomp "github.com/elastic/go-seccomp-bpf"
	"github.com/elastic/go-seccomp-bpf/arch"
	"github.com/landlock-lsm/go-landlock/landlock"
	llsys "github.com/landlock-lsm/go-landlock/landlock/syscall"
	"golang.org/x/sys/unix"
)

// Resource limits of a worker process.
const (
	workerFiles   = 512     // descriptors; filesOpen and a few more are used
	compileMemory = 8 << 30 // bytes of memory to compile a module in
	rightReadFile = 1 << 2  // LANDLOCK_ACCESS_FS_READ_FILE
	rightReadDir  = 1 << 3  // LANDLOCK_ACCESS_FS_READ_DIR
	newUserspace  = 1 << 28 // CLONE_NEWUSER
)

// refused are the system calls a worker never makes: to start programs, to talk
// to anyone but its parent, to reach other processes, the kernel's own settings
// or files by anything but a path.
var refused = strings.Fields(`
	execve execveat fork vfork unshare setns ptrace process_vm_readv process_vm_writev kcmp
	pidfd_open pidfd_getfd pidfd_send_signal tkill
	socket socketpair connect bind listen accept accept4
	mount umount umount2 move_mount open_tree fsopen fsconfig fsmount fspick mount_setattr pivot_root chroot
	bpf perf_event_open userfaultfd io_uring_setup io_uring_enter io_uring_register
	keyctl add_key request_key open_by_handle_at name_to_handle_at
	init_module finit_module delete_module kexec_load kexec_file_load reboot swapon swapoff
	sethostname setdomainname settimeofday clock_settime clock_adjtime adjtimex acct quotactl quotactl_fd
	iopl ioperm modify_ldt personality syslog lookup_dcookie nfsservctl vhangup
	setuid setgid setreuid setregid setresuid setresgid setgroups setfsuid setfsgid capset
	shmget shmat shmctl msgget msgsnd msgrcv msgctl semget semop semctl mq_open mq_unlink
	open creat openat2 truncate mknod mknodat fanotify_init inotify_init inotify_init1
	chmod fchmodat chown lchown fchownat link linkat symlink symlinkat rename renameat renameat2 unlink unlinkat mkdir mkdirat rmdir`)

// confine closes the sandbox around this process, all threads of it, as far as
// the kernel can. What could not be done is in the message, for the node's log.
func confine(cacheDir, purpose string) readyMessage {
	var have, missing []string
	note := func(name string, err error) {
		if err == nil {
			have = append(have, name)
		} else {
			missing = append(missing, name+" ("+err.Error()+")")
		}
	}
	note("landlock", restrictFiles(cacheDir, purpose))
	note("seccomp", restrictCalls())
	note("rlimits", restrictResources(purpose))
	return readyMessage{Sandbox: strings.Join(append(have, "separate process"), ", "), Missing: strings.Join(missing, ", ")}
}

// restrictFiles leaves nothing of the file system but, for a worker that runs
// guests, reading the compiled modules.
func restrictFiles(cacheDir, purpose string) error {
	if _, err := llsys.LandlockGetABIVersion(); err != nil {
		return err
	}
	var rules []landlock.Rule
	if purpose == purposeRun {
		rules = append(rules, landlock.PathAccess(rightReadFile|rightReadDir, cacheDir))
	}
	return landlock.V8.BestEffort().Restrict(rules...)
}

// restrictCalls refuses system calls. It also sets no_new_privs.
func restrictCalls() error {
	here, err := arch.GetInfo("")
	if err != nil {
		return err
	}
	var names []string
	for _, name := range refused {
		if _, exists := here.SyscallNames[name]; exists {
			names = append(names, name)
		}
	}
	self := uint64(os.Getpid())
	other := func(name string) seccomp.NameWithConditions {
		return seccomp.NameWithConditions{Name: name, Conditions: seccomp.ArgumentConditions{{Argument: 0, Operation: seccomp.NotEqual, Value: self}}}
	}
	withBit := func(name string, argument uint32, bit uint64) seccomp.NameWithConditions {
		return seccomp.NameWithConditions{Name: name, Conditions: seccomp.ArgumentConditions{{Argument: argument, Operation: seccomp.BitsSet, Value: bit}}}
	}
	return seccomp.LoadFilter(seccomp.Filter{
		NoNewPrivs: true,
		Flag:       seccomp.FilterFlagTSync,
		Policy: seccomp.Policy{
			DefaultAction: seccomp.ActionAllow,
			Syscalls: []seccomp.SyscallGroup{
				// The C library then uses clone, whose flags can be looked at.
				{Names: []string{"clone3"}, Action: seccomp.ActionErrno | seccomp.Action(unix.ENOSYS)},
				{Names: names, Action: seccomp.ActionErrno},
				{NamesWithCondtions: []seccomp.NameWithConditions{
					other("kill"), other("tgkill"), other("rt_sigqueueinfo"), other("rt_tgsigqueueinfo"),
					withBit("clone", 0, newUserspace),
					// Landlock refuses these too, where there is Landlock.
					withBit("openat", 2, unix.O_WRONLY), withBit("openat", 2, unix.O_RDWR), withBit("openat", 2, unix.O_CREAT),
				}, Action: seccomp.ActionErrno},
			},
		},
	})
}

// restrictResources bounds descriptors, and the memory a hostile module can make
// the compiler use, and leaves no core files, which would hold the guest's data.
func restrictResources(purpose string) error {
	if purpose == purposeCompile {
		if err := unix.Setrlimit(unix.RLIMIT_DATA, &unix.Rlimit{Cur: compileMemory, Max: compileMemory}); err != nil {
			return err
		}
	}
	if err := unix.Setrlimit(unix.RLIMIT_CORE, &unix.Rlimit{}); err != nil {
		return err
	}
	if err := unix.Setrlimit(unix.RLIMIT_MEMLOCK, &unix.Rlimit{}); err != nil {
		return err
	}
	return unix.Setrlimit(unix.RLIMIT_NOFILE, &unix.Rlimit{Cur: workerFiles, Max: workerFiles})
}
