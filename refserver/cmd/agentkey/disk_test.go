//go:build unix

package main

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"syscall"
	"testing"
	"time"

	"github.com/matryer/is"
)

// A full disk means 503, and service goes on by itself when there is space again.
func TestDiskFull(t *testing.T) {
	t.Parallel()
	for _, megabytes := range diskSizes(16, 48, 128) {
		disk := smallDisk(t, megabytes, nil)
		refuseAgainAndAgain(t, newInstallation(t, "sqlite:"+filepath.Join(disk, "agentkey.db")), fullDisk(t, disk))
	}
}

// The same with a Postgres whose tables are on that disk.
func TestDiskFullOnPostgres(t *testing.T) {
	t.Parallel()
	c := newCluster(t)
	for _, megabytes := range diskSizes(24, 64, 256) {
		disk := smallDisk(t, megabytes, c.account)
		refuseAgainAndAgain(t, newInstallation(t, c.createOn(t, disk)), fullDisk(t, disk))
	}
}

// Where it is the disk of its own log that is full, Postgres ends, and goes on
// when there is space and somebody starts it again. The server only waits.
func TestDiskFullOfLog(t *testing.T) {
	t.Parallel()
	for _, megabytes := range diskSizes(96, 160) {
		c := installedPostgres(t)
		disk := smallDisk(t, megabytes, c.account)
		c.begin(t, disk)
		full := fullDisk(t, disk)
		refuseAgainAndAgain(t, newInstallation(t, c.dsn()), diskFault{full.name, full.begin, func() { full.end(); c.resume(t) }})
		if err := c.stop(syscall.SIGQUIT); err != nil {
			t.Error(err)
		}
	}
}

// A disk that refuses to sync ends Postgres too: nobody knows what it has kept.
// What was answered stands all the same.
func TestSyncFails(t *testing.T) {
	t.Parallel()
	c := installedPostgres(t)
	c.preload = refusingToSync(t)
	dir := c.ownDir(t)
	c.begin(t, dir)
	sign := filepath.Join(dir, "refuse")
	refuseAgainAndAgain(t, newInstallation(t, c.dsn()), diskFault{
		"the disk could be synced",
		func() {
			if err := os.WriteFile(sign, nil, 0o600); err != nil {
				t.Fatal(err)
			}
		},
		func() {
			if err := os.Remove(sign); err != nil {
				t.Fatal(err)
			}
			c.resume(t)
		},
	})
}

// refusing is the source of a library that lets syncs fail while there is a file
// of the name in REFUSE.
const refusing = `#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <stdlib.h>
#include <unistd.h>
static int refused(void) {
	const char *name = getenv("REFUSE");
	if (!name || access(name, F_OK)) return 0;
	errno = EIO;
	return 1;
}
int fsync(int fd) {
	int (*real)(int) = (int (*)(int))dlsym(RTLD_NEXT, "fsync");
	return refused() ? -1 : real(fd);
}
int fdatasync(int fd) {
	int (*real)(int) = (int (*)(int))dlsym(RTLD_NEXT, "fdatasync");
	return refused() ? -1 : real(fd);
}
`

// refusingToSync builds that library where others can read it.
func refusingToSync(t *testing.T) string {
	t.Helper()
	compiler, err := exec.LookPath("cc")
	if err != nil || runtime.GOOS != "linux" {
		t.Skip("needs a C compiler, and Linux: to let syncs fail")
	}
	dir, err := os.MkdirTemp("", "agentkey-sync-")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.RemoveAll(dir) })
	source, library := filepath.Join(dir, "refusing.c"), filepath.Join(dir, "refusing.so")
	if err := errors.Join(os.Chmod(dir, 0o755), os.WriteFile(source, []byte(refusing), 0o600)); err != nil {
		t.Fatal(err)
	}
	if out, err := exec.Command(compiler, "-shared", "-fPIC", "-o", library, source, "-ldl").CombinedOutput(); err != nil {
		t.Skipf("needs a C compiler that can make libraries: %s", out)
	}
	return library
}

// diskFault is something wrong with a disk. begin may be called again and again
// before end is.
type diskFault struct {
	name       string // what ends it
	begin, end func()
}

// fullDisk is that the disk is full.
func fullDisk(t *testing.T, disk string) diskFault {
	filler := filepath.Join(disk, "filler")
	return diskFault{"there was space on " + disk, func() { fill(t, filler) }, func() {
		if err := os.Remove(filler); err != nil {
			t.Fatal(err)
		}
	}}
}

// refuseAgainAndAgain brings the fault about under a server with load until it
// refuses, and ends it, and wants service to go on.
func refuseAgainAndAgain(t *testing.T, in installed, fault diskFault) {
	t.Helper()
	p, _ := in.start(t, program(t), freeAddress(t))
	defer p.kill()
	l := newLoad(t, in.token, crashClients, p.url())
	stop := l.run(t)
	var resumed []time.Duration
	for range rounds(2, 20) {
		is := is.New(t)
		l.advance(t, 20)
		away := l.away.Load()
		until(t, time.Minute, "requests are answered 503", func() bool {
			fault.begin()
			return l.away.Load() >= away+crashClients
		})
		is.Equal(status(p.url()+"/livez"), http.StatusOK)
		fault.end()
		began := time.Now()
		l.advance(t, 20)
		resumed = append(resumed, time.Since(began))
		is.Equal(status(p.url()+"/readyz"), http.StatusOK)
	}
	stop()
	spread(t, "service after "+fault.name, resumed, patient)
	is.New(t).Equal(l.cut.Load(), int64(0))
	l.check(t)
}

// diskSizes are the file systems that a test fills, in megabytes: the smallest,
// and the others in the long form.
func diskSizes(all ...int64) []int64 {
	if proving() {
		return all
	}
	return all[:1]
}

// createOn makes a database whose tables are in the directory.
func (c *cluster) createOn(t *testing.T, dir string) string {
	t.Helper()
	name := fmt.Sprintf("full_%d", c.databases)
	c.databases++
	tables := filepath.Join(dir, "tables")
	if out, err := c.command("mkdir", tables).CombinedOutput(); err != nil {
		t.Fatalf("mkdir: %v %s", err, out)
	}
	do := func(statements ...string) {
		db, err := sql.Open("pgx", c.dsn())
		for _, statement := range statements {
			if err == nil {
				_, err = db.Exec(statement)
			}
		}
		if err == nil {
			err = db.Close()
		}
		if err != nil {
			t.Error(err)
		}
	}
	do("CREATE TABLESPACE "+name+" LOCATION '"+tables+"'", "CREATE DATABASE "+name+" TABLESPACE "+name)
	t.Cleanup(func() { do("DROP DATABASE "+name+" WITH (FORCE)", "DROP TABLESPACE "+name) })
	u := url.URL{Scheme: "postgres", Path: "/" + name, RawQuery: url.Values{"host": {c.dir}, "user": {"postgres"}}.Encode()}
	return u.String()
}

// smallDisk mounts a file system of so many megabytes that belongs to the account,
// or to us; it goes with the test.
func smallDisk(t *testing.T, megabytes int64, owner *syscall.Credential) string {
	t.Helper()
	dir, err := os.MkdirTemp("", "agentkey-disk-")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.Remove(dir) })
	options := fmt.Sprintf("size=%dm,mode=0700", megabytes)
	if owner != nil {
		options += fmt.Sprintf(",uid=%d,gid=%d", owner.Uid, owner.Gid)
	}
	if out, err := exec.Command("mount", "-t", "tmpfs", "-o", options, "agentkey-test", dir).CombinedOutput(); err != nil {
		t.Skipf("needs to mount a small file system, which takes root: %s", out)
	}
	t.Cleanup(func() {
		var out []byte
		var err error
		for range 100 { // what was a process of Postgres may be there for a moment longer
			if out, err = exec.Command("umount", dir).CombinedOutput(); err == nil {
				return
			}
			pause(context.WithoutCancel(t.Context()), 100*time.Millisecond)
		}
		t.Errorf("umount: %v %s", err, out)
	})
	return dir
}

// fill takes what is left of the disk.
func fill(t *testing.T, name string) {
	t.Helper()
	f, err := os.OpenFile(name, os.O_CREATE|os.O_WRONLY|os.O_APPEND, 0o600)
	if errors.Is(err, syscall.ENOSPC) {
		return
	}
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = f.Close() }()
	block := make([]byte, 64<<10)
	for size := len(block); size >= 512; size /= 2 {
		for err = nil; err == nil; {
			_, err = f.Write(block[:size])
		}
		if !errors.Is(err, syscall.ENOSPC) {
			t.Fatal(err)
		}
	}
}
