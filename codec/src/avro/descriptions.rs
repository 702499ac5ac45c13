//! What schemas say, in `doc`, of the columns that are made of them.

use std::collections::{BTreeMap, BTreeSet};

use super::places::{self, Place};
use super::schema::{AvroSchemaGraph, MAX_NODES, Node, NodeId};

/// A type that is used often says of its fields what it says each time.
const MAX_DESCRIPTIONS: usize = 10_000;

/// What the schema says of itself (the empty path), and of the fields that columns are made of, by dotted path. What is inside of a
/// list has the list's path.
pub(super) fn descriptions(graph: &AvroSchemaGraph) -> BTreeMap<String, String> {
    let mut found = BTreeMap::new();
    found.extend(graph.about(graph.root).and_then(|about| Some((String::new(), about.doc.clone()?))));
    // Behind these there are no columns, and without them nothing contains itself.
    let ends = places::misfits(graph).into_iter().map(|misfit| misfit.place).collect();
    describe(graph, graph.root, "", &ends, &mut 0, &mut found);
    found
}

fn describe(
    graph: &AvroSchemaGraph,
    node: NodeId,
    path: &str,
    ends: &BTreeSet<Place>,
    visits: &mut usize,
    found: &mut BTreeMap<String, String>,
) {
    *visits += 1;
    if *visits > MAX_NODES {
        return;
    }
    match &graph.nodes[node as usize] {
        Node::Array(item) if !ends.contains(&(node, 0)) => describe(graph, *item, path, ends, visits, found),
        Node::Union(branches) => {
            branches.iter().for_each(|branch| describe(graph, *branch, path, ends, visits, found));
        }
        Node::Record(fields) => {
            for (i, (name, id)) in fields.iter().enumerate() {
                let path = if path.is_empty() { name.clone() } else { format!("{path}.{name}") };
                if found.len() >= MAX_DESCRIPTIONS {
                    return;
                }
                let doc = graph.about(node).and_then(|about| about.fields.get(i)?.doc.clone());
                found.extend(doc.map(|doc| (path.clone(), doc)));
                if !ends.contains(&(node, i)) {
                    describe(graph, *id, &path, ends, visits, found);
                }
            }
        }
        _ => {}
    }
}
