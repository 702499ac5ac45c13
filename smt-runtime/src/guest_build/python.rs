//! A transform in Python.

use std::env;
use std::path::{Path, PathBuf};
use std::process::Command;

use super::staging::{Staging, name_of};
use super::{Built, GuestToolchain, find_program};
use crate::Error;

pub(super) const FILE: &str = "transform.py";

macro_rules! sdk {
    ($($file:literal),*) => {
        [$(($file, include_str!(concat!("../../../transform-sdk/python/gristmill_transform/", $file)))),*]
    };
}

const SDK: [(&str, &str); 7] =
    sdk!["__init__.py", "_transform.py", "_types.py", "_verdict.py", "component.py", "log.py", "metrics.py"];

const ENTRY: &str = "import transform
from gristmill_transform.component import world

WitWorld = world(transform)
";

pub(super) fn build(dir: &Path) -> Result<Built, Error> {
    let environments = [env::var_os("VIRTUAL_ENV").map(PathBuf::from), Some(dir.join(".venv"))];
    let folders = environments.into_iter().flatten().map(|folder| folder.join("bin"));
    let program = find_program("componentize-py", folders).ok_or_else(|| {
        Error::host("componentize-py is not there: `pip install 'componentize-py>=0.25'`, and activate its environment")
    })?;
    let staging = Staging::of(dir)?;
    for (file, text) in SDK {
        staging.write(&format!("sdk/gristmill_transform/{file}"), text)?;
    }
    staging.write("entry/gristmill_component.py", ENTRY)?;
    let mut tool = Command::new(&program);
    tool.arg("--quiet").arg("--wit-path").arg(staging.path("wit")).args(["--world", "simple-transform"]);
    tool.args(["componentize", "--stub-wasi"]);
    // The SDK first: it speaks the contract of this runtime.
    for path in ["sdk", "source", "entry"] {
        tool.arg("--python-path").arg(staging.path(path));
    }
    tool.arg("gristmill_component").arg("--output").arg(staging.path("component.wasm"));
    let bytes = staging.run(&mut tool)?;
    Ok(Built { name: name_of(dir), bytes, toolchain: GuestToolchain::ComponentizePy { program } })
}
