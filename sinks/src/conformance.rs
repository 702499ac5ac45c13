//! The suite that every [`Store`] runs. Each function panics with a sentence if the store breaks a promise.

use std::sync::Arc;

use bytes::Bytes;
use tokio::task::JoinSet;

use crate::{Create, ErrorKind, Move, Staged, Store};

/// Runs everything. `prefix` is an empty place in the store.
pub async fn run(store: Arc<dyn Store>, prefix: &str) {
    creates_once(&store, &format!("{prefix}/create")).await;
    one_of_many_creators_wins(&store, &format!("{prefix}/race")).await;
    lists_in_order_and_in_pages(&store, &format!("{prefix}/list")).await;
    uploads_are_invisible_until_finished(&store, &format!("{prefix}/upload")).await;
    moves_never_replace(&store, &format!("{prefix}/move")).await;
    one_of_many_movers_wins(&store, &format!("{prefix}/movers")).await;
    a_replaced_source_is_not_moved(&store, &format!("{prefix}/changed")).await;
    refuses_names_that_leave_the_store(&store).await;
    deletes_once(&store, &format!("{prefix}/delete")).await;
}

/// Stages an object in two parts.
pub async fn stage(store: &Arc<dyn Store>, name: &str, bytes: &[u8]) -> Staged {
    let mut upload = store.stage(name).await.expect("a staged upload can begin");
    let (a, b) = bytes.split_at(bytes.len() / 2);
    upload.append(Bytes::copy_from_slice(a)).await.expect("bytes can be appended");
    upload.append(Bytes::copy_from_slice(b)).await.expect("bytes can be appended");
    upload.finish().await.expect("an upload can be finished")
}

async fn content(store: &Arc<dyn Store>, name: &str) -> Option<Bytes> {
    store.get(name).await.expect("get answers").map(|o| o.bytes)
}

async fn names(store: &Arc<dyn Store>, prefix: &str, after: Option<&str>, limit: usize) -> Vec<String> {
    let listed = store.list(prefix, after, limit).await.expect("list answers");
    listed.into_iter().map(|l| l.name).collect()
}

async fn creates_once(store: &Arc<dyn Store>, at: &str) {
    let name = format!("{at}/a=b/object");
    assert!(content(store, &name).await.is_none(), "an absent object was read");
    assert!(store.stat(&name).await.expect("stat answers").is_none(), "an absent object has a stat");
    let Create::Created(generation) =
        store.create_if_absent(&name, "one".into()).await.expect("create answers")
    else {
        panic!("the first create did not create");
    };
    let second = store.create_if_absent(&name, "two".into()).await.expect("create answers");
    assert_eq!(second, Create::Exists, "the second create did not see the first");
    let object = store.get(&name).await.expect("get answers").expect("a created object is there");
    assert_eq!((&object.bytes[..], object.generation), (&b"one"[..], generation), "an object was replaced");
    let stat = store.stat(&name).await.expect("stat answers").expect("a created object has a stat");
    assert_eq!((stat.bytes, stat.crc32c, stat.generation), (3, crc32c::crc32c(b"one"), generation));
}

async fn one_of_many_creators_wins(store: &Arc<dyn Store>, at: &str) {
    for round in 0..20 {
        let mut racers = JoinSet::new();
        for i in 0..16u32 {
            let (store, name) = (store.clone(), format!("{at}/{round}"));
            racers.spawn(async move {
                let bytes = Bytes::from(format!("{i:0>1000}"));
                (i, store.create_if_absent(&name, bytes).await.expect("create answers"))
            });
        }
        let outcomes = racers.join_all().await;
        let winners: Vec<u32> =
            outcomes.into_iter().filter(|(_, o)| matches!(o, Create::Created(_))).map(|(i, _)| i).collect();
        assert_eq!(winners.len(), 1, "{winners:?} all created one object");
        let expected = format!("{:0>1000}", winners[0]);
        let found = content(store, &format!("{at}/{round}")).await;
        assert_eq!(found.as_deref(), Some(expected.as_bytes()), "the winner's content is not what is there");
    }
}

async fn lists_in_order_and_in_pages(store: &Arc<dyn Store>, at: &str) {
    // `.` sorts before `/`, `0` after it: a walk by folders must not get this wrong.
    let mut all: Vec<String> =
        ["a/x", "a.b", "a0", "a/b/c", "b/..c", "a=1/z", "ab"].map(|n| format!("{at}/{n}")).into();
    for name in &all {
        store.create_if_absent(name, Bytes::new()).await.expect("create answers");
    }
    all.sort();
    let prefix = format!("{at}/");
    assert_eq!(names(store, &prefix, None, 100).await, all, "a listing is not in byte order");
    for limit in [1, 2, 3] {
        let (mut found, mut after): (Vec<String>, Option<String>) = (Vec::new(), None);
        loop {
            let page = names(store, &prefix, after.as_deref(), limit).await;
            let full = page.len() == limit;
            found.extend(page);
            after = found.last().cloned();
            if !full {
                break;
            }
        }
        assert_eq!(found, all, "pages of {limit} do not make the whole");
    }
    let expected: Vec<_> = all.iter().filter(|n| n.starts_with(&format!("{at}/a/"))).cloned().collect();
    assert_eq!(names(store, &format!("{at}/a/"), None, 100).await, expected);
    let expected: Vec<_> = all.iter().filter(|n| n.starts_with(&format!("{at}/a"))).cloned().collect();
    assert_eq!(names(store, &format!("{at}/a"), None, 100).await, expected, "a prefix is text, not a folder");
    let between = format!("{at}/a/b/zzz");
    let expected: Vec<_> = all.iter().filter(|n| **n > between).cloned().collect();
    assert_eq!(names(store, &prefix, Some(&between), 100).await, expected, "start_after need not exist");
    assert!(names(store, &format!("{at}/nothing/here"), None, 100).await.is_empty());
}

async fn uploads_are_invisible_until_finished(store: &Arc<dyn Store>, at: &str) {
    let before = names(store, "", None, 10_000).await;
    let name = format!("{at}/staged");
    let mut upload = store.stage(&name).await.expect("a staged upload can begin");
    upload.append("some".into()).await.expect("bytes can be appended");
    assert!(content(store, &name).await.is_none(), "a partial upload can be read");
    assert_eq!(names(store, "", None, 10_000).await, before, "a partial upload is listed");
    upload.append(" bytes".into()).await.expect("bytes can be appended");
    let staged = upload.finish().await.expect("an upload can be finished");
    assert_eq!((staged.name.as_str(), staged.bytes), (name.as_str(), 10));
    assert_eq!(staged.crc32c, crc32c::crc32c(b"some bytes"));
    assert_eq!(content(store, &name).await.as_deref(), Some(&b"some bytes"[..]));
    // A second upload to that name must not replace the first.
    let mut again = store.stage(&name).await.expect("a staged upload can begin");
    again.append("other".into()).await.expect("bytes can be appended");
    assert!(again.finish().await.is_err(), "an upload replaced an object");
    assert_eq!(content(store, &name).await.as_deref(), Some(&b"some bytes"[..]));
    drop(store.stage(&format!("{at}/dropped")).await.expect("a staged upload can begin"));
    assert_eq!(names(store, &format!("{at}/"), None, 10).await, [name], "a dropped upload is listed");
}

async fn moves_never_replace(store: &Arc<dyn Store>, at: &str) {
    let to = format!("{at}/final/dt=1/file");
    let staged = stage(store, &format!("{at}/staged-1"), b"first").await;
    let moved = store.move_if_absent(&staged.name, staged.generation, &to).await.expect("move answers");
    assert_eq!(moved, Move::Moved);
    assert!(content(store, &staged.name).await.is_none(), "a moved object is still staged");
    assert_eq!(content(store, &to).await.as_deref(), Some(&b"first"[..]));
    let again = store.move_if_absent(&staged.name, staged.generation, &to).await.expect("move answers");
    assert_eq!(again, Move::AlreadyMoved);
    let other = stage(store, &format!("{at}/staged-2"), b"second").await;
    let refused = store.move_if_absent(&other.name, other.generation, &to).await.expect("move answers");
    assert_eq!(refused, Move::DestinationExists);
    assert_eq!(content(store, &to).await.as_deref(), Some(&b"first"[..]), "a move replaced an object");
    assert_eq!(
        content(store, &other.name).await.as_deref(),
        Some(&b"second"[..]),
        "a refused move lost its source"
    );
    // A user deletes the file: a late move must not bring it back.
    assert!(store.delete(&to).await.expect("delete answers"));
    let late = store.move_if_absent(&staged.name, staged.generation, &to).await.expect("move answers");
    assert_eq!(late, Move::AlreadyMoved);
    assert!(content(store, &to).await.is_none(), "a deleted object came back");
}

async fn one_of_many_movers_wins(store: &Arc<dyn Store>, at: &str) {
    for round in 0..10 {
        let staged = stage(store, &format!("{at}/staged-{round}"), b"content").await;
        let to = format!("{at}/final-{round}");
        let mut racers = JoinSet::new();
        for _ in 0..16 {
            let (store, staged, to) = (store.clone(), staged.clone(), to.clone());
            racers.spawn(async move {
                store.move_if_absent(&staged.name, staged.generation, &to).await.expect("move answers")
            });
        }
        let outcomes = racers.join_all().await;
        assert_eq!(outcomes.iter().filter(|o| **o == Move::Moved).count(), 1, "{outcomes:?}");
        assert!(outcomes.iter().all(|o| *o != Move::DestinationExists), "{outcomes:?}");
        assert_eq!(content(store, &to).await.as_deref(), Some(&b"content"[..]));
    }
}

async fn a_replaced_source_is_not_moved(store: &Arc<dyn Store>, at: &str) {
    let staged = stage(store, &format!("{at}/staged"), b"content").await;
    let other = crate::Generation(staged.generation.0 ^ 1);
    let error = store
        .move_if_absent(&staged.name, other, &format!("{at}/final"))
        .await
        .expect_err("a wrong generation");
    assert_eq!(error.kind(), ErrorKind::Changed);
    assert!(content(store, &format!("{at}/final")).await.is_none());
    assert!(content(store, &staged.name).await.is_some());
}

async fn refuses_names_that_leave_the_store(store: &Arc<dyn Store>) {
    for bad in ["", "/etc/x", "../x", "a/../../x", "a\0b", "a//b", "./a"] {
        let error = store.create_if_absent(bad, "x".into()).await.expect_err("a bad name");
        assert_eq!(error.kind(), ErrorKind::InvalidName, "{bad:?}");
        assert_eq!(store.get(bad).await.expect_err("a bad name").kind(), ErrorKind::InvalidName, "{bad:?}");
        assert_eq!(store.stage(bad).await.expect_err("a bad name").kind(), ErrorKind::InvalidName, "{bad:?}");
        assert_eq!(
            store.delete(bad).await.expect_err("a bad name").kind(),
            ErrorKind::InvalidName,
            "{bad:?}"
        );
    }
}

async fn deletes_once(store: &Arc<dyn Store>, at: &str) {
    let name = format!("{at}/object");
    store.create_if_absent(&name, "x".into()).await.expect("create answers");
    assert!(store.delete(&name).await.expect("delete answers"));
    assert!(!store.delete(&name).await.expect("delete answers"));
    assert!(names(store, &format!("{at}/"), None, 10).await.is_empty());
}
