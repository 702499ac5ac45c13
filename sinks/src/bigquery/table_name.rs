//! The names of tables: of the topic, of the output, and of values of rows.

use crate::directory::{DirectoryTemplate, NULL_DIRECTORY};
use crate::error::{Error, ErrorKind, Result};
use crate::names::MAIN_OUTPUT;

/// What a name of a table is made of: `{topic}_{country}`.
///
/// `{topic}` and `{output}` are those; any other is the path of a column: of a string, an integer, a boolean or a date, such as
/// `{customer.country}`, whose values part rows into tables. What is no letter, digit or `_` becomes `_`, and null is `null`. An output
/// other than `main` that the template does not name is put behind.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TableTemplate(Vec<Part>);

#[derive(Clone, Debug, PartialEq, Eq)]
enum Part {
    Text(String),
    Topic,
    Output,
    Column(String),
}

impl TableTemplate {
    /// Reads a template.
    ///
    /// # Errors
    /// `InvalidConfig` if a brace stands alone, or names nothing, and for what no table's name has.
    pub fn parse(template: &str) -> Result<Self> {
        let wrong = |why: &str| {
            let text = format!(
                "table {template:?} {why}; an example is {{topic}}_{{country}}, by a column `country`"
            );
            Error::new(ErrorKind::InvalidConfig, text)
        };
        let (mut parts, mut rest) = (Vec::new(), template);
        while !rest.is_empty() {
            let end = rest.find(['{', '}']).unwrap_or(rest.len());
            let (text, from) = rest.split_at(end);
            if text.contains(['`', '.', ':', '/', ' ']) {
                return Err(wrong(
                    "is more than the table's name, such as `{topic}`: `project` and `dataset` have fields of their own",
                ));
            }
            if !text.is_empty() {
                parts.push(Part::Text(text.to_owned()));
            }
            let Some(inner) = from.strip_prefix('{') else {
                if from.is_empty() {
                    break;
                }
                return Err(wrong("has a `}` without a `{`"));
            };
            let (name, behind) = inner.split_once('}').ok_or_else(|| wrong("has a `{` without a `}`"))?;
            parts.push(match name {
                "topic" => Part::Topic,
                "output" => Part::Output,
                name if name.split('.').any(|step| step.trim().is_empty()) || name.contains('{') => {
                    return Err(wrong(&format!("has {{{name}}}, which names no column")));
                }
                name => Part::Column(name.to_owned()),
            });
            rest = behind;
        }
        Ok(TableTemplate(parts))
    }

    /// The columns whose values it takes, as they are written.
    pub fn columns(&self) -> impl Iterator<Item = &str> {
        self.0.iter().filter_map(|part| match part {
            Part::Column(path) => Some(path.as_str()),
            _ => None,
        })
    }

    /// What parts rows by those values; none if there are no columns.
    pub fn directories(&self) -> Option<DirectoryTemplate> {
        let columns: Vec<&str> = self.columns().collect();
        (!columns.is_empty()).then(|| DirectoryTemplate::of_values(&columns))
    }

    /// The name of the table of an output of a topic, and of a directory that [`directories`](Self::directories) has made. Without
    /// one columns are shown as they are written.
    pub fn name(&self, topic: &str, output: &str, directory: Option<&str>) -> String {
        let clean = |text: &str| -> String {
            text.chars().map(|c| if c.is_alphanumeric() || c == '_' { c } else { '_' }).collect()
        };
        let mut values = directory.map(|directory| directory.split('/'));
        let mut name: String = self
            .0
            .iter()
            .map(|part| match (part, &mut values) {
                (Part::Text(text), _) => text.clone(),
                (Part::Topic, _) => clean(topic),
                (Part::Output, _) => clean(output),
                (Part::Column(path), None) => format!("{{{path}}}"),
                (Part::Column(_), Some(values)) => match values.next().unwrap_or_default() {
                    NULL_DIRECTORY => "null".to_owned(),
                    // As it was before it was a directory's name.
                    value => clean(&percent_encoding::percent_decode_str(value).decode_utf8_lossy()),
                },
            })
            .collect();
        if output != MAIN_OUTPUT && !self.0.contains(&Part::Output) {
            name = format!("{name}_{}", clean(output));
        }
        name
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_of_topics_outputs_and_values() {
        let name = |template: &str, topic: &str, output: &str, values: Option<&str>| {
            TableTemplate::parse(template).unwrap().name(topic, output, values)
        };
        assert_eq!(name("{topic}", "shop.orders-v2", "main", None), "shop_orders_v2");
        assert_eq!(name("{topic}", "orders", "high-value", None), "orders_high_value");
        assert_eq!(name("raw_{output}_{topic}", "orders", "main", None), "raw_main_orders");
        assert_eq!(name("{topic}_{c.country}", "orders", "main", None), "orders_{c.country}");
        assert_eq!(name("{topic}_{c}_{shop}", "t", "gold", Some("d%2Fe/-7")), "t_d_e__7_gold");
        assert_eq!(name("{c}", "t", "main", Some("köln 東京%25")), "köln_東京_");
        assert_eq!(name("{c}_x", "t", "main", Some(NULL_DIRECTORY)), "null_x");
        for bad in ["{topic", "topic}", "{}", "{a..b}", "{a{b}", "x}{topic}", "lake.{topic}"] {
            assert!(TableTemplate::parse(bad).is_err(), "{bad}");
        }
        let template = TableTemplate::parse("{topic}_{a}_{b.c}").unwrap();
        assert_eq!(template.columns().collect::<Vec<_>>(), ["a", "b.c"]);
        assert_eq!(TableTemplate::parse("{topic}").unwrap().directories(), None);
    }
}
