//! `gristmill transform inspect`.

use std::path::Path;

use gristmill_smt::Manifest;
use serde_json::{Value, json};

use crate::exit::Exit;

pub(crate) fn run(wasm: &Path, as_json: bool) -> Result<(), Exit> {
    let wasm = &super::component(wasm)?;
    let transform = super::load(wasm)?;
    let manifest = transform.manifest();
    let bytes = std::fs::metadata(wasm).map_err(|e| Exit::failed(format!("{}: {e}", wasm.display())))?.len();
    if as_json {
        let mut value = serde_json::to_value(manifest).map_err(Exit::failed)?;
        value["contract"] = contract(&transform.imports()).into();
        value["imports"] = transform.imports().into();
        value["works_on"] = transform.kind().to_string().into();
        value["sha256"] = transform.digest().into();
        value["bytes"] = bytes.into();
        println!("{}", serde_json::to_string_pretty(&value).map_err(Exit::failed)?);
        return Ok(());
    }
    println!("{} {}: {}", manifest.name, manifest.version, manifest.description);
    println!("works on {}", transform.kind());
    println!("contract {}", contract(&transform.imports()));
    println!("imports  {}", imports(&transform.imports()));
    println!("reads    {}", reads(manifest));
    let outputs = manifest.outputs.iter().map(|output| format!("{} ({})", output.name, output.description));
    let outputs: Vec<String> = std::iter::once("main".to_owned()).chain(outputs).collect();
    println!("outputs  {}", outputs.join(", "));
    println!("size     {bytes} bytes");
    println!("sha256   {}", transform.digest());
    println!("config");
    let fields = configuration(&manifest.config_schema);
    if fields.is_empty() {
        println!("  takes none");
    }
    fields.iter().for_each(|line| println!("  {line}"));
    Ok(())
}

/// The contract that it was built against, as its imports name it; without any, the newest that this build speaks.
fn contract(imports: &[String]) -> String {
    let newest = gristmill_smt::support().contract;
    let package = newest.split('@').next().unwrap_or_default();
    let version = imports.iter().find_map(|name| {
        let (interface, version) = name.split_once('@')?;
        interface.strip_prefix(package)?.starts_with('/').then_some(version)
    });
    version.map_or(newest.clone(), |version| format!("{package}@{version}"))
}

/// Without package and version, which are the contract's.
fn imports(names: &[String]) -> String {
    let short = |name: &String| {
        let name = name.split('@').next().unwrap_or_default();
        name.rsplit('/').next().unwrap_or_default().to_owned()
    };
    // Types alone give it nothing to call.
    let names: Vec<String> = names
        .iter()
        .map(short)
        .filter(|name| !["types", "columns", "simple"].contains(&name.as_str()))
        .collect();
    if names.is_empty() { "nothing".to_owned() } else { names.join(", ") }
}

fn reads(manifest: &Manifest) -> String {
    if !manifest.columns.is_empty() {
        let column = |need: &gristmill_smt::ColumnNeed| {
            let optional = if need.required { "" } else { ", if there is one" };
            format!("{} ({}{optional})", need.path, need.data_type)
        };
        return manifest.columns.iter().map(column).collect::<Vec<_>>().join(", ");
    }
    let r = manifest.reads;
    let parts = [
        (r.keys, "keys"),
        (r.values, "values"),
        (r.headers, "headers"),
        (r.timestamps, "timestamps"),
        (r.offsets, "offsets"),
    ];
    let read: Vec<&str> = parts.into_iter().filter(|(read, _)| *read).map(|(_, part)| part).collect();
    if read.is_empty() { "what its configuration says".to_owned() } else { read.join(", ") }
}

/// A line for each field of the configuration.
fn configuration(schema: &Value) -> Vec<String> {
    let none = json!([]);
    let required = schema.get("required").unwrap_or(&none);
    let is_required = |name: &str| required.as_array().is_some_and(|all| all.iter().any(|n| n == name));
    let Some(fields) = schema.get("properties").and_then(Value::as_object) else { return Vec::new() };
    let line = |(name, field): (&String, &Value)| {
        let kind = match field.get("type") {
            Some(Value::String(kind)) => kind.clone(),
            Some(Value::Array(kinds)) => {
                kinds.iter().filter_map(Value::as_str).collect::<Vec<_>>().join(" or ")
            }
            _ => match field.get("enum").and_then(Value::as_array) {
                Some(values) => values.iter().map(Value::to_string).collect::<Vec<_>>().join(" | "),
                None => "any".to_owned(),
            },
        };
        let needed = if is_required(name) { "required" } else { "optional" };
        let secret = if field.get("writeOnly") == Some(&Value::Bool(true)) { ", secret" } else { "" };
        let about = field.get("description").and_then(Value::as_str).unwrap_or_default();
        format!("{name}: {kind}, {needed}{secret}  {about}").trim_end().to_owned()
    };
    fields.iter().map(line).collect()
}
