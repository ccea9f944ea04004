package ociinit

import "golang.org/x/sys/unix"

// returnToHost goes back into the mount namespace ns, which is the host's, for a
// container that asks for none of its own. The container's mounts come along as a copy
// that belongs to no namespace: nothing of them shows in the host's table, nobody can
// add to them, and they end with the last process in them. It returns the new root.
func returnToHost(ns int) (int, error) {
	tree, err := unix.OpenTree(unix.AT_FDCWD, "/", unix.OPEN_TREE_CLONE|unix.OPEN_TREE_CLOEXEC|unix.AT_RECURSIVE)
	if err != nil {
		return -1, fail("copy the root", err)
	}
	defer unix.Close(tree) // what is below stays, connected, as long as somebody is in it
	if err := unix.Unshare(unix.CLONE_FS); err != nil {
		return -1, fail("unshare fs", err)
	}
	if err := unix.Setns(ns, unix.CLONE_NEWNS); err != nil {
		return -1, fail("return to the host's mount namespace", err)
	}
	return changeRoot(tree)
}

// changeRoot makes the directory dir the root, and returns it open.
func changeRoot(dir int) (int, error) {
	if err := unix.Fchdir(dir); err != nil {
		return -1, fail("enter the root", err)
	}
	if err := unix.Chroot("."); err != nil {
		return -1, fail("chroot", err)
	}
	if err := unix.Chdir("/"); err != nil {
		return -1, fail("chdir /", err)
	}
	root, err := unix.Open("/", unix.O_PATH|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		return -1, fail("open /", err)
	}
	return root, nil
}
