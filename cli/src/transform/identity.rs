//! A transform that is given what another one reads, and keeps every row: what of a cost is the sandbox's.

use gristmill_smt::{Kind, Reads};
use wit_component::{ComponentEncoder, StringEncoding, embed_component_metadata};
use wit_parser::Resolve;

use crate::exit::Exit;

const CONTRACT: &str = include_str!("../../../wit/transform.wit");

/// The component, of one of the contract's worlds.
pub(crate) fn component(kind: Kind, reads: Reads, fields: &[u32]) -> Result<Vec<u8>, Exit> {
    let (world, module) = match kind {
        Kind::Records => ("record-transform", records(reads)),
        Kind::Columns => ("column-transform", columns(fields)),
    };
    encode(world, &module).map_err(|e| Exit::failed(format!("the identity is no component: {e}")))
}

fn encode(world: &str, module: &str) -> Result<Vec<u8>, Box<dyn std::error::Error>> {
    let mut module = wat::parse_str(module)?;
    let mut resolve = Resolve::default();
    let package = resolve.push_str("transform.wit", CONTRACT)?;
    let world = resolve.select_world(&[package], Some(world))?;
    embed_component_metadata(&mut module, &resolve, world, StringEncoding::UTF8)?;
    Ok(ComponentEncoder::default().module(&module)?.encode()?)
}

fn records(reads: Reads) -> String {
    let flags = [reads.keys, reads.values, reads.headers, reads.timestamps, reads.offsets];
    let flags = flags.iter().enumerate().fold(0, |all, (bit, read)| all | u32::from(*read) << bit);
    let configure = r#"
  (func (export "configure") (param i32 i32 i32 i32 i32) (result i32) (i32.const 192))"#;
    module(flags, &[], configure, "apply", "i32 i32 i32 i32 i32 i32 i32 i32 i32 i32 i32 i32")
}

fn columns(fields: &[u32]) -> String {
    // Ok, and a binding: what is read, and two empty lists.
    let configure = format!(
        r#"
  (data (i32.const 196) "{}")
  (func (export "configure-columns") (param i32 i32 i32 i32 i32 i32 i32) (result i32) (i32.const 192))"#,
        bytes(&[1024, fields.len() as u32, 1024, 0, 1024, 0])
    );
    module(0, fields, &configure, "apply-columns", "i32 i32 i32 i32")
}

/// In the memory: texts from 0, the manifest at 128, the answer to `configure` at 192, that to a batch at 256 and its one
/// operation at 320, the numbers of the fields at 1024. What the host puts there comes after these, anew for each batch.
fn module(flags: u32, fields: &[u32], configure: &str, apply: &str, parameters: &str) -> String {
    let start = (1024 + 4 * fields.len()).next_multiple_of(64);
    let manifest = bytes(&[0, 8, 8, 1, 9, 1, 10, 2, 0, 0, flags, 0, 0]);
    let numbers = bytes(fields);
    format!(
        r#"(module
  (memory (export "memory") 1)
  (global $top (mut i32) (i32.const {start}))
  (data (i32.const 0) "identity1i{{}}")
  (data (i32.const 128) "{manifest}")
  (data (i32.const 1024) "{numbers}")
  (func (export "cabi_realloc") (param i32 i32 i32 i32) (result i32)
    (local $at i32) (local $missing i32)
    (local.set $at (global.get $top))
    (global.set $top
      (i32.and (i32.add (i32.add (global.get $top) (local.get 3)) (i32.const 15)) (i32.const -16)))
    (local.set $missing
      (i32.sub (i32.shr_u (i32.add (global.get $top) (i32.const 65535)) (i32.const 16)) (memory.size)))
    (if (i32.gt_s (local.get $missing) (i32.const 0))
      (then (if (i32.eq (memory.grow (local.get $missing)) (i32.const -1)) (then (unreachable)))))
    (local.get $at))
  (func (export "describe") (result i32) (i32.const 128)){configure}
  (func (export "{apply}") (param $rows i32) (param {parameters}) (result i32)
    ;; KEEP of all rows.
    (i32.store (i32.const 320) (i32.shl (local.get $rows) (i32.const 8)))
    (i32.store (i32.const 256) (i32.const 320))
    (i32.store (i32.const 260) (i32.const 1))
    (i32.const 256))
  (func (export "cabi_post_{apply}") (param i32) (global.set $top (i32.const {start}))))"#
    )
}

/// Words in the memory, as a text module writes them.
fn bytes(words: &[u32]) -> String {
    words.iter().flat_map(|word| word.to_le_bytes()).map(|byte| format!("\\{byte:02x}")).collect()
}
