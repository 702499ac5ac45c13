//! Where a replay's things lie: beside those of the live pipeline, never among them.

use std::path::{Path, PathBuf};

use super::ReplayName;
use crate::check::Checked;
use crate::error::Error;
use crate::file::{Gcs, Sink, Start};
use crate::place::Place;

impl Checked {
    /// The same pipeline as its replay `name` runs it: with an id, a group, a place for files and, if dead letters
    /// go to a folder, a folder for them that are the replay's own. It serves no HTTP: the address is the live
    /// pipeline's.
    ///
    /// | | live | replay |
    /// |---|---|---|
    /// | pipeline id | `orders` | `orders-replay-NAME` |
    /// | group | `g` | `g-replay-NAME` |
    /// | files and ledger, folder or prefix | `lake/rows` | `lake/NAME` |
    /// | tables of BigQuery | `orders` | `orders_NAME` |
    /// | dead letters, folder or prefix | `dead` | `dead-NAME` |
    /// | dead letters, topic | `t` | `t`: the letters name the replay as `connector.name` |
    ///
    /// # Errors
    /// [`ErrorKind::Config`](crate::ErrorKind::Config) if that would be a place of the live pipeline.
    pub fn replay(&self, name: &ReplayName) -> Result<Checked, Error> {
        let mut aside = self.clone();
        let p = &mut aside.pipeline;
        let group = p.source.kafka.group.take().unwrap_or_else(|| format!("gristmill-{}", p.name));
        p.source.kafka.group = Some(format!("{group}-replay-{name}"));
        p.name = format!("{}-replay-{name}", p.name);
        p.source.kafka.start = Start::Earliest;
        p.http = None;
        sink_beside(&mut p.sink, name)?;
        if let Some(dead) = &mut p.dead_letters {
            if let Some(folder) = &mut dead.folder {
                *folder = beside(folder, "dead_letters.folder", |own| format!("{own}-{name}"))?;
            }
            if let Some(gcs) = &mut dead.gcs {
                prefix_beside(gcs, "dead_letters.gcs", |own| format!("{own}-{name}"))?;
            }
            if let Some(table) = &mut dead.table {
                *table = format!("{table}_{}", name.to_string().replace('-', "_"));
            }
        }
        apart(self, &aside, name)?;
        Ok(aside)
    }
}

/// A new kind of sink gets its branch here.
fn sink_beside(sink: &mut Sink, name: &ReplayName) -> Result<(), Error> {
    let (field, folder, gcs) = match (&mut sink.files, &mut sink.bigquery) {
        (Some(files), _) => ("sink.files", &mut files.folder, &mut files.gcs),
        (None, Some(bigquery)) => {
            // A table's name has no `-`.
            bigquery.table = format!("{}_{}", bigquery.table, name.to_string().replace('-', "_"));
            ("sink.bigquery.state", &mut bigquery.state.folder, &mut bigquery.state.gcs)
        }
        (None, None) => return Ok(()),
    };
    if let Some(folder) = folder {
        *folder = beside(folder, &format!("{field}.folder"), |_| name.to_string())?;
    }
    if let Some(gcs) = gcs {
        prefix_beside(gcs, &format!("{field}.gcs"), |_| name.to_string())?;
    }
    Ok(())
}

fn prefix_beside(gcs: &mut Gcs, field: &str, name: impl FnOnce(&str) -> String) -> Result<(), Error> {
    let prefix = gcs.prefix.as_deref().unwrap_or("").trim_matches('/');
    let (parent, own) = prefix.rsplit_once('/').unwrap_or(("", prefix));
    if own.is_empty() {
        return Err(Error::config(format!(
            "`{field}` has no `prefix`, which leaves no place beside it for a replay; give it one, such as `rows`"
        )));
    }
    let slash = if parent.is_empty() { "" } else { "/" };
    gcs.prefix = Some(format!("{parent}{slash}{}", name(own)));
    Ok(())
}

fn beside(folder: &Path, field: &str, name: impl FnOnce(&str) -> String) -> Result<PathBuf, Error> {
    match folder.file_name() {
        Some(own) => Ok(folder.with_file_name(name(&own.to_string_lossy()))),
        None => Err(Error::config(format!(
            "`{field}: {}` leaves no place beside it for a replay; give the folder a name, such as `rows`",
            folder.display()
        ))),
    }
}

/// Refuses a replay that would write into a place of the live pipeline, or around one.
fn apart(live: &Checked, aside: &Checked, name: &ReplayName) -> Result<(), Error> {
    let places = |checked: &Checked| {
        let p = &checked.pipeline;
        let dead = p.dead_letters.as_ref().and_then(|dead| dead.place());
        let named = [("the sink's place", p.sink.named_place()), ("the place of the dead letters", dead)];
        let path = |place: Place<'_>| match place {
            Place::Folder(folder) => real(&checked.path(folder)),
            // A path like any other, which no folder can have.
            Place::Gcs(gcs) => Path::new("gs:").join(&gcs.bucket).join(place.prefix()),
        };
        named
            .into_iter()
            .filter_map(|(what, place)| Some((what, path(place?), place?.shown(checked))))
            .collect::<Vec<_>>()
    };
    for (_, theirs, shown) in places(aside) {
        for (what, ours, own) in places(live) {
            if theirs.starts_with(&ours) || ours.starts_with(&theirs) {
                return Err(Error::config(format!(
                    "`--into {name}` would write to {shown}, and {what} of the live pipeline is {own}; choose another name"
                )));
            }
        }
    }
    Ok(())
}

/// The path without symbolic links, as far as it exists.
fn real(path: &Path) -> PathBuf {
    path.canonicalize().unwrap_or_else(|_| match (path.parent(), path.file_name()) {
        (Some(parent), Some(own)) if parent.as_os_str().is_empty() => real(Path::new(".")).join(own),
        (Some(parent), Some(own)) => real(parent).join(own),
        _ => path.to_owned(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn checked(folder: &Path, sink: &str, dead: &str) -> Checked {
        let text = format!(
            "name: orders\nsource:\n  kafka: {{bootstrap_servers: 'localhost:9092', topics: [orders]}}\ndecode: {{format: bytes}}\n\
             sink: {{files: {{folder: '{sink}'}}}}\ndead_letters: {{folder: '{dead}'}}\nhttp: {{listen: '127.0.0.1:9600'}}\n"
        );
        let file = folder.join("pipeline.yaml");
        std::fs::write(&file, text).unwrap();
        crate::check(&file).unwrap()
    }

    fn name(text: &str) -> ReplayName {
        text.parse().unwrap()
    }

    #[test]
    fn a_replay_has_everything_of_its_own_beside_the_live_pipeline() {
        let folder = tempfile::tempdir().unwrap();
        let live = checked(folder.path(), "lake/rows/", "dead");
        let replay = live.replay(&name("again")).unwrap().pipeline;
        assert_eq!(replay.name, "orders-replay-again");
        assert_eq!(replay.source.kafka.group.as_deref(), Some("gristmill-orders-replay-again"));
        assert_eq!(replay.sink.files.as_ref().unwrap().folder.as_deref(), Some(Path::new("lake/again")));
        assert_eq!(replay.dead_letters.unwrap().folder.as_deref(), Some(Path::new("dead-again")));
        assert!(replay.http.is_none(), "the address is the live pipeline's");
    }

    #[test]
    fn in_a_bucket_a_replay_has_a_prefix_beside_the_live_one() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("pipeline.yaml");
        let check = |prefix: &str| {
            let text = format!(
                "name: orders\nsource:\n  kafka: {{bootstrap_servers: 'localhost:9092', topics: [orders]}}\ndecode: {{format: bytes}}\n\
                 sink: {{files: {{gcs: {{bucket: lake, prefix: '{prefix}'}}}}}}\ndead_letters: {{gcs: {{bucket: lake, prefix: a/dead}}}}\n"
            );
            std::fs::write(&file, text).unwrap();
            crate::check(&file).unwrap()
        };
        let live = check("a/rows/");
        let replay = live.replay(&name("again")).unwrap().pipeline;
        assert_eq!(replay.sink.files.unwrap().gcs.unwrap().prefix.as_deref(), Some("a/again"));
        assert_eq!(replay.dead_letters.unwrap().gcs.unwrap().prefix.as_deref(), Some("a/dead-again"));
        assert!(live.replay(&name("dead")).unwrap_err().to_string().contains("gs://lake/a/dead"));
        assert!(check("").replay(&name("again")).unwrap_err().to_string().contains("give it one"));
    }

    #[test]
    fn a_place_of_the_live_pipeline_is_refused_whatever_it_is_called() {
        let folder = tempfile::tempdir().unwrap();
        let live = checked(folder.path(), "rows", "dead");
        for taken in ["rows", "dead"] {
            let error = live.replay(&name(taken)).unwrap_err().to_string();
            assert!(error.contains("choose another name"), "{error}");
        }
        std::fs::create_dir_all(folder.path().join("rows")).unwrap();
        std::os::unix::fs::symlink("rows", folder.path().join("link")).unwrap();
        assert!(live.replay(&name("link")).is_err(), "a link to the sink's folder");
        let around = checked(folder.path(), "rows/../all/rows", "all/rows2/dead");
        assert!(around.replay(&name("rows2")).is_err(), "a folder around the dead letters");
    }

    #[test]
    fn a_folder_without_a_name_has_nothing_beside_it() {
        let folder = tempfile::tempdir().unwrap();
        for nameless in [".", "..", "/"] {
            let error =
                checked(folder.path(), nameless, "dead").replay(&name("again")).unwrap_err().to_string();
            assert!(error.contains("give the folder a name"), "{nameless}: {error}");
        }
    }
}
