//! A transform in JavaScript.

use std::path::Path;
use std::process::Command;

use super::staging::{Staging, name_of};
use super::{Built, GuestToolchain, find_program};
use crate::Error;

pub(super) const FILE: &str = "transform.js";

macro_rules! sdk {
    ($($file:literal),*) => {
        [$(($file, include_str!(concat!("../../../transform-sdk/js/", $file)))),*]
    };
}

const SDK: [(&str, &str); 4] = sdk!["package.json", "index.js", "types.js", "component.js"];

const ENTRY: &str = r#"import log from "gristmill:transform/log@0.1.0";
import metrics from "gristmill:transform/metrics@0.1.0";
import { world } from "gristmill-transform/component";
import transform from "./transform.js";

const host = { log: log.log, count: metrics.count, observe: metrics.observe };
export const { describe, configureSimple, applySimple } = world(transform, host);
"#;

pub(super) fn build(dir: &Path) -> Result<Built, Error> {
    let program = find_program("componentize-qjs", [dir.join("node_modules/.bin")]).ok_or_else(|| {
        Error::host(format!(
            "componentize-qjs is not there: `npm install --save-dev componentize-qjs` in {}",
            dir.display()
        ))
    })?;
    let staging = Staging::of(dir)?;
    for (file, text) in SDK {
        staging.write(&format!("source/node_modules/gristmill-transform/{file}"), text)?;
    }
    staging.write("source/gristmill-component.js", ENTRY)?;
    let mut tool = Command::new(&program);
    tool.arg("--wit").arg(staging.path("wit")).args(["--world", "simple-transform"]);
    tool.arg("--js").arg(staging.path("source/gristmill-component.js"));
    tool.arg("--module-root").arg(staging.source()).args(["--stub-wasi", "--sync"]);
    tool.arg("--output").arg(staging.path("component.wasm"));
    let bytes = staging.run(&mut tool)?;
    Ok(Built { name: name_of(dir), bytes, toolchain: GuestToolchain::ComponentizeQjs { program } })
}
