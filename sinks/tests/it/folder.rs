//! The folder store keeps the promises of [`Store`], also between processes and after a kill.

use std::process::{Command, Stdio};
use std::sync::Arc;
use std::time::Duration;

use gristmill_sinks::{Create, ErrorKind, FolderStore, Store, conformance};
use tempfile::tempdir;

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_folder_keeps_every_promise_of_a_store() {
    let folder = tempdir().unwrap();
    conformance::run(Arc::new(FolderStore::open(folder.path()).unwrap()), "suite").await;
}

/// Set in the child processes of the test below.
const CHILD: &str = "GRISTMILL_TEST_CREATE_IN";

#[tokio::test]
async fn of_sixteen_processes_that_create_one_object_one_wins() {
    const ROUNDS: usize = 5;
    if let Ok(folder) = std::env::var(CHILD) {
        let store = FolderStore::open(folder).unwrap();
        let me = std::process::id().to_string();
        for round in 0..ROUNDS {
            let name = format!("race/{round}");
            if let Create::Created(_) = store.create_if_absent(&name, me.clone().into()).await.unwrap() {
                store.create_if_absent(&format!("won/{round}/{me}"), "x".into()).await.unwrap();
            }
        }
        return;
    }
    let folder = tempdir().unwrap();
    let test = std::env::current_exe().unwrap();
    let children: Vec<_> = (0..16)
        .map(|_| {
            Command::new(&test)
                .args(["--exact", "folder::of_sixteen_processes_that_create_one_object_one_wins"])
                .env(CHILD, folder.path())
                .stdout(Stdio::null())
                .spawn()
                .unwrap()
        })
        .collect();
    for mut child in children {
        assert!(child.wait().unwrap().success());
    }
    let store = FolderStore::open(folder.path()).unwrap();
    for round in 0..ROUNDS {
        let winners = store.list(&format!("won/{round}/"), None, 100).await.unwrap();
        assert_eq!(winners.len(), 1, "{winners:?}");
        let content = store.get(&format!("race/{round}")).await.unwrap().unwrap().bytes;
        assert!(winners[0].name.ends_with(std::str::from_utf8(&content).unwrap()));
    }
}

#[tokio::test]
async fn temporaries_of_the_dead_are_removed_and_those_of_the_living_are_not() {
    let folder = tempdir().unwrap();
    let store = FolderStore::open(folder.path()).unwrap();
    let mut living = store.stage("a").await.unwrap();
    living.append("x".into()).await.unwrap();
    let dead = folder.path().join(".gristmill-tmp/left-behind");
    std::fs::write(&dead, "x").unwrap();
    assert_eq!(store.remove_stale_temporaries(Duration::from_secs(3600)).await.unwrap(), 0);
    assert_eq!(store.remove_stale_temporaries(Duration::ZERO).await.unwrap(), 1);
    assert!(!dead.exists());
    living.finish().await.unwrap();
    assert_eq!(&store.get("a").await.unwrap().unwrap().bytes[..], b"x");
}

#[tokio::test]
async fn a_move_that_died_between_link_and_unlink_is_finished() {
    let folder = tempdir().unwrap();
    let store: Arc<dyn Store> = Arc::new(FolderStore::open(folder.path()).unwrap());
    let staged = conformance::stage(&store, "staged", b"content").await;
    std::fs::hard_link(folder.path().join("staged"), folder.path().join("final")).unwrap();
    let moved = store.move_if_absent(&staged.name, staged.generation, "final").await.unwrap();
    assert_eq!(moved, gristmill_sinks::Move::Moved);
    assert!(store.get("staged").await.unwrap().is_none());
    assert!(store.get("final").await.unwrap().is_some());
}

#[tokio::test]
async fn what_the_disk_refuses_is_said_with_its_place() {
    let folder = tempdir().unwrap();
    std::fs::write(folder.path().join("file"), "").unwrap();
    let store = FolderStore::open(folder.path()).unwrap();
    let error = store.create_if_absent("file/below", "x".into()).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Unsupported);
    assert!(error.to_string().contains("file"), "{error}");
    let error = store.get(".gristmill-tmp/x").await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::InvalidName);
    assert!(FolderStore::open(folder.path().join("file")).is_err());
}
