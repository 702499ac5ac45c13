//! Buckets and folders that are missing, full or closed, and a clock that goes back.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use gristmill_sinks::fake_gcs::FakeGcs;
use gristmill_tests::campaign::hidden;

use super::bench::{Bench, Told, World};

const BUCKET: &str = "lake";

/// A pipeline to the bucket `lake` of a fake of its own.
fn to_bucket<'w>(world: &'w World, fake: &FakeGcs) -> Bench<'w> {
    let bench = Bench::new(world);
    let url = fake.url();
    bench.call(url.trim_start_matches("http://"), "storage:4443");
    bench.file(|p| {
        p.place =
            format!("gcs: {{bucket: {BUCKET}, prefix: rows, endpoint: '{url}', credentials: anonymous}}");
    });
    bench
}

/// Brings what a reader of the bucket sees to where the reader of folders looks.
fn download(fake: &FakeGcs, into: &Path) {
    for name in fake.object_names(BUCKET).iter().filter(|name| !hidden(name)) {
        let path = into.join(name);
        fs::create_dir_all(path.parent().expect("a folder is above it")).unwrap();
        fs::write(path, fake.object(BUCKET, name).expect("it was listed").bytes).unwrap();
    }
}

fn goes_on(bench: &Bench<'_>, fake: &FakeGcs) {
    bench.run_to_the_end();
    download(fake, bench.folder.path());
    bench.assert_nothing_lost();
}

/// Nothing starts until `mend` is done, and nothing is left in the bucket.
fn refused(world: &World, spoil: impl FnOnce(&FakeGcs), mend: impl FnOnce(&FakeGcs)) -> Told {
    let fake = FakeGcs::start();
    spoil(&fake);
    let bench = to_bucket(world, &fake);
    let told = bench.refuses_to_start(1);
    assert_eq!(fake.object_names(BUCKET), [] as [&str; 0]);
    mend(&fake);
    goes_on(&bench, &fake);
    told
}

pub(super) fn bucket_missing(world: &World) -> Told {
    refused(world, |_| {}, |fake| fake.create_bucket(BUCKET))
}

const READING: [&str; 2] = ["storage.objects.get", "storage.objects.list"];

pub(super) fn bucket_not_allowed(world: &World) -> Told {
    let spoil = |fake: &FakeGcs| {
        fake.create_bucket(BUCKET);
        fake.grant(Some(&READING));
    };
    refused(world, spoil, |fake| fake.grant(None))
}

pub(super) fn token_refused(world: &World) -> Told {
    let spoil = |fake: &FakeGcs| {
        fake.create_bucket(BUCKET);
        fake.accept_tokens(Some(&["another"]));
    };
    refused(world, spoil, |fake| fake.accept_tokens(None))
}

pub(super) fn permission_withdrawn(world: &World) -> Told {
    let fake = FakeGcs::start();
    fake.create_bucket(BUCKET);
    let bench = to_bucket(world, &fake);
    let mut run = bench.start();
    bench.wait_for_the_end(&mut run);
    fake.grant(Some(&READING));
    bench.orders(20);
    let told = bench.ends(run, 1);
    fake.grant(None);
    goes_on(&bench, &fake);
    told
}

/// A small file system of its own; gone with the value.
struct Disk(PathBuf);

impl Disk {
    /// `None` without the right to mount.
    fn mount(at: &Path, options: &str) -> Option<Disk> {
        fs::create_dir_all(at).unwrap();
        let mounted =
            Command::new("mount").args(["-t", "tmpfs", "-o", options, "gristmill"]).arg(at).output();
        mounted.is_ok_and(|o| o.status.success()).then(|| Disk(at.to_owned()))
    }

    fn remount(&self, options: &str) {
        let status = Command::new("mount").args(["-o", &format!("remount,{options}")]).arg(&self.0).status();
        assert!(status.unwrap().success());
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg("--lazy").arg(&self.0).status();
    }
}

/// Orders that are larger than the disk.
pub(super) fn disk_full(world: &World) -> Told {
    const MEGABYTE: usize = 1 << 20;
    let bench = Bench::new(world);
    for _ in 0..40 {
        bench.record(None, |id| {
            format!("{{\"order_id\": \"{id}\", \"note\": \"{}\"}}", "x".repeat(MEGABYTE / 20)).into_bytes()
        });
    }
    bench.file(|p| {
        p.decode = "{format: json, fields: {order_id: string not null, note: string}}".into();
        p.place = "folder: rows\n    format: jsonl".into();
    });
    let rows = bench.folder.path().join("rows");
    let told = match Disk::mount(&rows, "size=1m") {
        Some(disk) => {
            let told = bench.stops(1);
            disk.remount("size=64m");
            bench.goes_on();
            return told;
        }
        None => {
            // Without the right to mount: files that may not grow, which is told in other words at the end.
            bench.call("File too large (os error 27)", "No space left on device (os error 28)");
            bench.ends(bench.pipeline.start_on_small_disk(MEGABYTE as u64), 1)
        }
    };
    bench.goes_on();
    told
}

/// The file system of a folder that was written to before is mounted read-only, as after an error of the disk.
pub(super) fn folder_read_only(world: &World) -> Option<Told> {
    let bench = Bench::new(world);
    bench.file(|_| {});
    let disk = Disk::mount(&bench.folder.path().join("rows"), "size=64m")?;
    bench.run_to_the_end();
    bench.orders(20);
    disk.remount("ro");
    let told = bench.stops(1);
    disk.remount("rw");
    bench.goes_on();
    Some(told)
}

pub(super) fn file_in_the_way(world: &World) -> Told {
    let bench = Bench::new(world);
    bench.file(|_| {});
    bench.beside("rows", "not a folder");
    let told = bench.refuses_to_start(1);
    fs::remove_file(bench.folder.path().join("rows")).unwrap();
    bench.goes_on();
    told
}

/// A library that has the process believe that it is 26 hours earlier.
const CLOCK: &str = r#"
#define _GNU_SOURCE
#include <dlfcn.h>
#include <sys/time.h>
#include <threads.h>
#include <time.h>
#define BACK (26 * 3600)
int clock_gettime(clockid_t id, struct timespec *out) {
    int (*real)(clockid_t, struct timespec *) = dlsym(RTLD_NEXT, "clock_gettime");
    int result = real(id, out);
    if (result == 0 && (id == CLOCK_REALTIME || id == CLOCK_REALTIME_COARSE)) out->tv_sec -= BACK;
    return result;
}
int gettimeofday(struct timeval *restrict out, void *restrict zone) {
    int (*real)(struct timeval *restrict, void *restrict) = dlsym(RTLD_NEXT, "gettimeofday");
    int result = real(out, zone);
    if (result == 0) out->tv_sec -= BACK;
    return result;
}
/* Who waits until a time waits until the kernel's time. */
int cnd_timedwait(cnd_t *c, mtx_t *m, const struct timespec *until) {
    int (*real)(cnd_t *, mtx_t *, const struct timespec *) = dlsym(RTLD_NEXT, "cnd_timedwait");
    struct timespec later = *until;
    later.tv_sec += BACK;
    return real(c, m, &later);
}
time_t time(time_t *out) {
    time_t (*real)(time_t *) = dlsym(RTLD_NEXT, "time");
    time_t result = real(NULL) - BACK;
    if (out) *out = result;
    return result;
}
"#;

pub(super) fn clock_set_back(world: &World) -> Told {
    let bench = Bench::new(world);
    bench.file(|_| {});
    let before = bench.run_to_the_end();
    bench.beside("clock.c", CLOCK);
    let library = bench.folder.path().join("clock.so");
    let compiled = Command::new("cc")
        .args(["-shared", "-fPIC", "-o"])
        .arg(&library)
        .arg(bench.folder.path().join("clock.c"))
        .arg("-ldl")
        .status();
    assert!(compiled.unwrap().success(), "a C compiler is needed for librdkafka too");
    bench.set_variable("LD_PRELOAD", library.to_str().expect("our own folder"));
    bench.orders(20);
    let after = bench.run_to_the_end();
    assert!(after[..10] < before[..10], "a day earlier: {} and {}", &before[..10], &after[..10]);
    // And forward again, over entries of both.
    bench.set_variable("LD_PRELOAD", "");
    bench.orders(20);
    bench.goes_on();
    assert!(bench.ok(&["ledger", "verify"]).starts_with("ok "));
    let audit = bench.ok(&["audit", "--since", "48h"]);
    assert!(audit.contains(" 0..60 ") && audit.contains("every offset is accounted for"), "{audit}");
    Told::silently("goes on: nothing depends on the clock")
}
