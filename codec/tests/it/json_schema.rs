//! JSON Schemas as columns, and objects read by them.

use arrow_schema::Schema;
use gristmill_codec::{
    ErrorKind, JsonDecoder, JsonOptions, SchemaSpec, json_schema_columns, json_schema_descriptions,
    rows_as_json,
};
use serde_json::{Value, json};

fn columns(schema: &Value) -> gristmill_codec::Result<Vec<String>> {
    let schema = json_schema_columns(&schema.to_string(), [], false)?;
    Ok(told(&schema))
}

fn told(schema: &Schema) -> Vec<String> {
    let of = schema.fields().iter().map(|field| {
        let null = if field.is_nullable() { "" } else { " not null" };
        let json = if field.extension_type_name().is_some() { " as JSON" } else { "" };
        format!("{}: {}{json}{null}", field.name(), field.data_type())
    });
    of.collect()
}

fn object(properties: Value) -> Value {
    json!({"type": "object", "properties": properties})
}

/// What one property becomes.
fn one(property: Value) -> String {
    match columns(&object(json!({"x": property}))) {
        Ok(columns) => columns[0].strip_prefix("x: ").unwrap().to_owned(),
        Err(e) => e.to_string(),
    }
}

#[test]
fn types_become_columns() {
    let cases = [
        (json!({"type": "integer"}), "Int64"),
        (json!({"type": "number"}), "Float64"),
        (json!({"type": ["integer", "number"]}), "Float64"),
        (json!({"type": "boolean"}), "Boolean"),
        (json!({"type": ["null", "string"], "maxLength": 3}), "Utf8"),
        (json!({"type": "string", "format": "date-time"}), r#"Timestamp(µs, "UTC")"#),
        (json!({"type": "string", "format": "date"}), "Date32"),
        (json!({"type": "string", "format": "uuid"}), "Utf8"),
        (json!({"enum": ["a", "b", null]}), "Utf8"),
        (json!({"const": 3}), "Int64"),
        (json!({"type": "array", "items": {"type": "string"}}), "List(non-null Utf8)"),
        (json!({"type": "array", "items": {"type": ["string", "null"]}}), "List(Utf8)"),
        (
            json!({"type": "object", "additionalProperties": {"type": "integer"}}),
            r#"Map("entries": non-null Struct("key": non-null Utf8, "value": non-null Int64), unsorted)"#,
        ),
        (
            json!({"properties": {"a": {"type": "integer"}, "b": {"type": "string"}}, "required": ["b"]}),
            r#"Struct("a": Int64, "b": non-null Utf8)"#,
        ),
        (json!({"oneOf": [{"type": "null"}, {"type": "string"}]}), "Utf8"),
        (json!({"anyOf": [{"const": "a"}, {"const": "b"}]}), "Utf8"),
        (json!({"allOf": [{"type": "string"}, {"minLength": 2}], "default": "x"}), "Utf8"),
        (json!({"type": "string", "allOf": [{"minLength": 2}]}), "Utf8"),
        // As Kafka Connect writes them.
        (json!({"type": "integer", "connect.type": "int16"}), "Int16"),
        (json!({"type": "number", "connect.type": "float32"}), "Float32"),
        (
            json!({"type": "integer", "connect.type": "int32", "title": "org.apache.kafka.connect.data.Date"}),
            "Date32",
        ),
        (
            json!({"type": "integer", "connect.type": "int64", "title": "org.apache.kafka.connect.data.Timestamp"}),
            r#"Timestamp(ms, "UTC")"#,
        ),
        (
            json!({"type": "number", "connect.type": "bytes", "title": "org.apache.kafka.connect.data.Decimal",
            "connect.parameters": {"scale": "2", "connect.decimal.precision": "10"}}),
            "Decimal128(10, 2)",
        ),
    ];
    for (schema, expected) in cases {
        assert_eq!(one(schema.clone()), expected, "{schema}");
    }
}

#[test]
fn what_has_no_column_is_refused_by_name_or_json() {
    let node =
        json!({"type": "object", "properties": {"next": {"$ref": "#/$defs/node"}, "n": {"type": "integer"}}});
    let recursive =
        json!({"type": "object", "properties": {"x": {"$ref": "#/$defs/node"}}, "$defs": {"node": node}});
    let cases = [
        (object(json!({"x": {}})), "field x: it may be anything"),
        (object(json!({"x": true})), "field x: it may be anything"),
        (object(json!({"x": {"type": ["string", "integer"]}})), "field x: it may be string or integer"),
        (
            object(json!({"x": {"oneOf": [{"type": "string"}, {"type": "integer"}]}})),
            "field x: it may have one of several types",
        ),
        (object(json!({"x": {"type": "object"}})), "field x: its members may be anything"),
        (object(json!({"x": {"type": "array"}})), "field x: its items may be anything"),
        (
            object(json!({"x": {"type": "array", "items": [{"type": "string"}]}})),
            "field x: its items may be anything",
        ),
        (object(json!({"x": {"type": "null"}})), "field x: it is always null"),
        (
            object(json!({"x": {"allOf": [{"type": "string"}, {"type": "integer"}]}})),
            "field x: it has to be of several types at once",
        ),
        (recursive, "field x.next: it contains itself"),
    ];
    for (schema, why) in cases {
        let error = columns(&schema).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::UnsupportedType, "{schema}");
        assert_eq!(
            error.to_string(),
            format!(
                "{why}, so it has no Arrow column of one type; `recursive: json` makes it a text of JSON"
            )
        );
        let schema = json_schema_columns(&schema.to_string(), [], true).unwrap();
        let text = told(&schema).join(" ");
        assert!(text.contains("as JSON") || text.contains("next"), "{text}");
    }
    for (schema, why) in [
        (json!("x"), "it is neither an object nor a boolean, so it is no schema"),
        (
            json!({"type": "string"}),
            "the schema does not describe an object with `properties`, so it has no fields to make columns of",
        ),
        (json!({"type": "object"}), ", so it has no Arrow column"),
        (object(json!({"x": {"type": "text"}})), "field x: `text` is not a type of JSON Schema"),
        (
            object(json!({"x": {"$ref": "#/definitions/y"}})),
            "field x: `$ref` leads to `#/definitions/y`, which is not there and not among the references",
        ),
        (object(json!({"x": {"properties": 1, "type": "object"}})), "field x: `properties` is not an object"),
    ] {
        let error = columns(&schema).unwrap_err();
        assert!(error.to_string().contains(why), "{error}");
    }
}

#[test]
fn references_are_followed_within_and_to_others() {
    let address = json!({"$id": "http://shop/address.json", "type": "object", "properties": {"city": {"type": "string"}, "geo": {"$ref": "geo.json"}}, "required": ["city"]});
    let geo = json!({"type": "object", "properties": {"lat": {"$ref": "#/definitions/number"}}, "definitions": {"number": {"type": "number"}}});
    let root = json!({"$id": "http://shop/order.json", "type": "object",
        "allOf": [{"$ref": "#/definitions/base%2Fid"}, {"properties": {"home": {"$ref": "address.json"}, "work": {"$ref": "http://shop/address.json"}}, "required": ["work"]}],
        "properties": {"total": {"$ref": "#money"}, "where": {"$ref": "geo.json#/properties/lat"}},
        "required": ["total", "id"],
        "definitions": {"base/id": {"type": "object", "properties": {"id": {"type": "integer"}}}, "m": {"$anchor": "money", "type": "number"}}});
    // `base/id` as a pointer is `base~1id`.
    let root = root.to_string().replace("base%2Fid", "base~1id");
    let references = [("http://shop/address.json", address.to_string()), ("geo.json", geo.to_string())];
    let references = || references.iter().map(|(name, text)| (*name, text.as_str()));
    let found = told(&json_schema_columns(&root, references(), false).unwrap());
    let address = r#"Struct("city": non-null Utf8, "geo": Struct("lat": Float64))"#;
    assert_eq!(
        found,
        [
            "total: Float64 not null",
            "where: Float64",
            "id: Int64 not null",
            &format!("home: {address}"),
            &format!("work: {address} not null")
        ]
    );
}

#[test]
fn what_pydantic_writes_is_read() {
    let schema = json!({"$defs": {"Kind": {"enum": ["new", "old"], "title": "Kind", "type": "string"},
        "Line": {"properties": {"sku": {"title": "Sku", "type": "string"}, "price": {"anyOf": [{"type": "number"}, {"type": "string"}], "title": "Price"}}, "required": ["sku", "price"], "title": "Line", "type": "object"}},
        "properties": {"id": {"title": "Id", "type": "integer"}, "kind": {"$ref": "#/$defs/Kind", "default": "new"},
        "note": {"anyOf": [{"type": "string"}, {"type": "null"}], "default": null, "title": "Note"},
        "lines": {"items": {"$ref": "#/$defs/Line"}, "title": "Lines", "type": "array"},
        "at": {"format": "date-time", "title": "At", "type": "string"}}, "required": ["id", "lines", "at"], "title": "Order", "type": "object"});
    let found = told(&json_schema_columns(&schema.to_string(), [], true).unwrap());
    assert_eq!(found[0], "id: Int64 not null");
    assert_eq!(found[1], "kind: Utf8");
    assert_eq!(found[2], "note: Utf8");
    assert!(
        found[3].starts_with(r#"lines: List(non-null Struct("sku": non-null Utf8, "price": "#),
        "{}",
        found[3]
    );
    assert_eq!(found[4], r#"at: Timestamp(µs, "UTC") not null"#);
}

#[test]
fn order_is_that_of_the_text_or_of_connect() {
    let schema = object(
        json!({"b": {"type": "string", "connect.index": 1}, "a": {"oneOf": [{"type": "null"}, {"type": "integer", "connect.index": 0}]}}),
    );
    assert_eq!(columns(&schema).unwrap(), ["a: Int64", "b: Utf8"]);
    assert_eq!(
        columns(&object(json!({"b": {"type": "string"}, "a": {"type": "integer"}}))).unwrap(),
        ["b: Utf8", "a: Int64"]
    );
}

#[test]
fn schemas_that_grow_as_they_are_read_end() {
    let mut properties = serde_json::Map::new();
    for i in 0..12 {
        let next = format!("#/$defs/d{}", i + 1);
        properties.insert(
            format!("d{i}"),
            object(json!({"a": {"$ref": next}, "b": {"$ref": next}, "c": {"$ref": next}})),
        );
    }
    properties.insert("d12".into(), json!({"type": "string"}));
    let bomb = json!({"$ref": "#/$defs/d0", "$defs": properties});
    let error = columns(&bomb).unwrap_err();
    assert_eq!(error.to_string(), "the schema has more than 20000 parts");
    json_schema_descriptions(&bomb.to_string(), []).unwrap();
    let error = columns(&json!({"$ref": "#"})).unwrap_err();
    assert!(error.to_string().starts_with("it contains itself"), "{error}");
}

#[test]
fn descriptions_are_told_by_path() {
    let schema = json!({"description": "An order.", "type": "object", "properties": {"id": {"description": "Its number."},
        "lines": {"type": "array", "items": {"$ref": "#/$defs/line"}}}, "$defs": {"line": {"description": "One of them.", "properties": {"sku": {"description": "What."}}}}});
    let found = json_schema_descriptions(&schema.to_string(), []).unwrap();
    let found: Vec<(&str, &str)> = found.iter().map(|(path, text)| (path.as_str(), text.as_str())).collect();
    assert_eq!(
        found,
        [("", "An order."), ("id", "Its number."), ("lines", "One of them."), ("lines.sku", "What.")]
    );
}

#[test]
fn any_value_is_kept_as_its_text() {
    let spec: SchemaSpec = serde_json::from_value(
        json!({"x": "json not null", "many": "list<json>", "by": "map<json>", "in": {"y": "JSON"}}),
    )
    .unwrap();
    let schema = spec.arrow_schema().unwrap();
    assert_eq!(schema.field(0).extension_type_name(), Some("arrow.json"));
    let mut decoder = JsonDecoder::new(schema, JsonOptions::default()).unwrap();
    let rows: [&[u8]; 4] = [
        br#"{"x": {"a": [1, 1.50, 1e400, "q\"\u00e9\n", null, true, false, {}, []], "a": 2}, "many": [1, "s", null, [2]], "by": {"k": {"z": 1}}, "in": {"y": -0.0}}"#,
        br#"{"x": "text"}"#,
        br#"{"many": []}"#,
        br#"{"x": 123456789012345678901234567890, "in": {"y": null}}"#,
    ];
    let decoded = decoder.decode(rows.iter().enumerate().map(|(i, row)| (i as u64, Some(*row)))).unwrap();
    assert_eq!(decoded.rows, [0, 1, 3]);
    assert_eq!(decoded.undecodable[0].reason, "field x: missing, and declared `not null`");
    let shown = rows_as_json(&decoded.batch).unwrap();
    assert_eq!(shown[0]["x"], "{\"a\":[1,1.50,1e400,\"q\\\"é\\n\",null,true,false,{},[]],\"a\":2}");
    assert_eq!(shown[0]["many"], json!(["1", "\"s\"", null, "[2]"]));
    assert_eq!(shown[0]["by"], json!({"k": "{\"z\":1}"}));
    assert_eq!(shown[0]["in"], json!({"y": "-0.0"}));
    assert_eq!(shown[1]["x"], "\"text\"");
    assert_eq!(shown[2]["x"], "123456789012345678901234567890");
}

#[test]
fn prefixes_name_schemas_that_are_new() {
    let spec: SchemaSpec = serde_json::from_value(json!({"x": "int64"})).unwrap();
    let mut options = JsonOptions::default();
    (options.registry_prefix, options.schema_ids) = (true, true);
    let mut decoder = JsonDecoder::new(spec.arrow_schema().unwrap(), options).unwrap();
    let value = [&[0, 0, 0, 0, 9][..], b"{\"x\": 1}"].concat();
    assert_eq!(decoder.missing_schemas([Some(value.as_slice()), Some(b"{}"), None]), [9]);
    decoder.add_writer_schema(9);
    assert_eq!(decoder.missing_schemas([Some(value.as_slice())]), [0u32; 0]);
    assert_eq!(decoder.decode([(0, Some(value.as_slice()))]).unwrap().rows, [0]);
}

/// A column is lost in no way of saying it, and is null where a valid record may be.
#[test]
fn what_a_schema_is_as_well_counts_too() {
    let id = json!({"id": {"type": "integer"}});
    let x = json!({"type": "object", "properties": {"x": {"type": "string"}}});
    let y = json!({"type": "object", "properties": {"y": {"type": "boolean"}, "x": {"type": "string"}}, "required": ["x"]});
    let definitions = json!({"a": {"type": "object", "properties": {"x": {"type": "string"}}}, "n": {"type": ["object", "null"], "properties": {"x": {"type": "string"}}}});
    let with = |mut schema: Value| {
        schema["definitions"] = definitions.clone();
        columns(&schema).unwrap().join(", ")
    };
    let beside = [
        (
            json!({"properties": id, "required": ["id"], "oneOf": [x, y]}),
            "id: Int64 not null, x: Utf8, y: Boolean",
        ),
        (
            json!({"type": "object", "properties": id, "anyOf": [{"required": ["id"]}, {"required": ["other"]}]}),
            "id: Int64",
        ),
        (json!({"allOf": [{"properties": id}, {"oneOf": [x]}]}), "id: Int64, x: Utf8"),
        (
            json!({"$ref": "#/definitions/a", "properties": id, "required": ["x"]}),
            "id: Int64, x: Utf8 not null",
        ),
        (
            json!({"allOf": [object(json!({"a": {"type": "string"}})), object(json!({"a": {"minLength": 1}}))]}),
            "a: Utf8",
        ),
        (
            json!({"allOf": [object(json!({"a": {"type": "number"}})), object(json!({"a": {"enum": [1, 2]}}))]}),
            "a: Int64",
        ),
        (json!({"type": "object", "properties": {"gone": false, "id": {"type": "integer"}}}), "id: Int64"),
    ];
    for (schema, expected) in beside {
        assert_eq!(with(schema.clone()), expected, "{schema}");
    }
    // An object that may be something else, beside one that is not: its members must not be lost.
    let mixed = object(json!({"m": {"properties": id, "oneOf": [{"type": "string"}, x]}}));
    assert!(
        columns(&mixed).unwrap_err().to_string().starts_with("field m: it may have one of several types")
    );
    let null_is_valid = [
        json!({"nullable": true, "allOf": [{"$ref": "#/definitions/a"}]}),
        json!({"nullable": true, "oneOf": [{"type": "string"}]}),
        json!({"nullable": true, "$ref": "#/definitions/a"}),
        json!({"allOf": [{"$ref": "#/definitions/n"}]}),
        json!({"properties": {"x": {"type": "string"}}}),
        json!({"items": {"type": "string"}}),
    ];
    for property in null_is_valid {
        let found = with(json!({"type": "object", "properties": {"a": property}, "required": ["a"]}));
        assert!(!found.ends_with("not null"), "{property}: {found}");
    }
    let found =
        with(json!({"type": "object", "properties": {"a": {"$ref": "#/definitions/a"}}, "required": ["a"]}));
    assert!(found.ends_with("not null"), "{found}");
    // Members of one pattern, and any others.
    let open = object(json!({"m": {"type": "object", "patternProperties": {"^S_": {"type": "string"}}}}));
    assert!(columns(&open).is_err());
}

#[test]
fn references_mean_what_is_near() {
    let bundled = json!({"type": "object", "properties": {"a": {"$ref": "http://x/a"}, "b": {"$ref": "#/$defs/B"}, "c": {"$ref": "c.json"}},
        "default": {"$id": "c.json", "type": "boolean"},
        "$defs": {"A": {"$id": "http://x/a", "type": "object", "properties": {"b": {"$ref": "#/$defs/B"}}, "$defs": {"B": {"type": "integer"}}}, "B": {"type": "string"}}});
    let first = r#"{"type": "number"}"#;
    let second = r#"{"$id": "c.json", "type": "string"}"#;
    let found = told(
        &json_schema_columns(&bundled.to_string(), [("./c.json", first), ("other.json", second)], false)
            .unwrap(),
    );
    assert_eq!(found, [r#"a: Struct("b": Int64)"#, "b: Utf8", "c: Float64"]);
}

/// By a thousand ways to the same place.
#[test]
fn schemas_of_many_parts_take_no_endless_time() {
    let properties: serde_json::Map<String, Value> =
        (0..9_000).map(|i| (format!("p{i}"), json!({"$ref": "#x"}))).collect();
    let names: Vec<String> = (0..100_000).map(|i| format!("p{i}")).collect();
    let filler: Vec<u32> = (0..100_000).collect();
    let schema = json!({"type": "object", "properties": properties, "required": names, "x-filler": filler, "$defs": {"x": {"$anchor": "x", "type": "string"}}});
    assert_eq!(json_schema_columns(&schema.to_string(), [], false).unwrap().fields().len(), 9_000);
    let long = format!(r#"{{"description": "{}"}}"#, "x".repeat(9 << 20));
    assert!(
        json_schema_columns(&long, [], false).unwrap_err().to_string().contains("more than 8388608 bytes")
    );
}

#[test]
fn what_is_written_is_valid_by_the_schema_in_front_of_it() {
    use std::sync::Arc;

    use arrow_array::*;
    use gristmill_codec::JsonEncoder;
    let encoded = |columns: Vec<(&str, ArrayRef)>, schema: Value| {
        let rows = RecordBatch::try_from_iter_with_nullable(
            columns.into_iter().map(|(name, column)| (name, column, true)),
        );
        let rows = rows.unwrap();
        let encoder = JsonEncoder::of_schema(&rows.schema(), &schema.to_string(), [], Some(7));
        let values = encoder.and_then(|encoder| encoder.encode(&rows)).map_err(|e| e.to_string())?;
        Ok::<_, String>(String::from_utf8(values[0][5..].to_vec()).unwrap())
    };
    let text = |value: Option<&str>| Arc::new(StringArray::from(vec![value])) as ArrayRef;
    let of = |properties: Value, required: Value| json!({"type": "object", "properties": properties, "required": required});
    let nullable = json!({"type": ["string", "null"]});
    // Required and null, beside one that is neither.
    let schema = of(json!({"a": nullable}), json!(["a"]));
    assert_eq!(encoded(vec![("a", text(None))], schema).unwrap(), r#"{"a":null}"#);
    let both = of(json!({"a": nullable, "b": {"type": "string"}}), json!(["a"]));
    assert_eq!(
        encoded(vec![("a", text(Some("x"))), ("b", text(None))], both.clone()).unwrap(),
        r#"{"a":"x"}"#
    );
    let error = encoded(vec![("a", text(None)), ("b", text(None))], both).unwrap_err();
    assert!(
        error.starts_with("the column `a`: it has a null, and the property is required beside others"),
        "{error}"
    );
    let error =
        encoded(vec![("a", text(None))], of(json!({"a": {"type": "string"}}), json!(["a"]))).unwrap_err();
    assert_eq!(error, "the column `a`: it has a null, and the property cannot be null");
    // Wherever it is.
    let lines = |skus: Vec<Option<&str>>| {
        let count = skus.len();
        let items =
            StructArray::try_from(vec![("sku", Arc::new(StringArray::from(skus)) as ArrayRef)]).unwrap();
        let item = Arc::new(arrow_schema::Field::new_list_field(items.data_type().clone(), true));
        let offsets = arrow_buffer::OffsetBuffer::from_lengths([count]);
        Arc::new(ListArray::new(item, offsets, Arc::new(items), None)) as ArrayRef
    };
    let line = json!({"type": "object", "properties": {"sku": {"type": "string"}}, "required": ["sku"]});
    let schema = of(json!({"lines": {"type": "array", "items": line}}), json!([]));
    assert_eq!(
        encoded(vec![("lines", lines(vec![Some("a")]))], schema.clone()).unwrap(),
        r#"{"lines":[{"sku":"a"}]}"#
    );
    let error = encoded(vec![("lines", lines(vec![Some("a"), None]))], schema).unwrap_err();
    assert_eq!(error, "the column `lines[].sku`: it has a null, and the property cannot be null");
    let list = ListArray::from_iter_primitive::<types::Int64Type, _, _>([Some(vec![Some(1), None])]);
    let error = encoded(
        vec![("n", Arc::new(list))],
        of(json!({"n": {"type": "array", "items": {"type": "integer"}}}), json!([])),
    )
    .unwrap_err();
    assert_eq!(error, "the column `n[]`: it has a null, and the property cannot be null");
    // Types, by how JSON has them.
    let day = || Arc::new(Date32Array::from(vec![1])) as ArrayRef;
    assert_eq!(
        encoded(vec![("d", day())], of(json!({"d": {"type": "string", "format": "date"}}), json!([])))
            .unwrap(),
        r#"{"d":"1970-01-02"}"#
    );
    let connect = json!({"d": {"type": "integer", "title": "org.apache.kafka.connect.data.Date"}});
    let error = encoded(vec![("d", day())], of(connect, json!([]))).unwrap_err();
    assert_eq!(error, "the column `d`: it is Date32, and the property is an `integer`");
    let error = encoded(vec![("a", text(Some("{}")))], of(json!({"a": {}}), json!([]))).unwrap_err();
    assert_eq!(
        error,
        "the column `a`: it is Utf8, and the property is of no one type, which is not written from columns"
    );
    let nan = Arc::new(Float64Array::from(vec![f64::NAN])) as ArrayRef;
    let error = encoded(vec![("f", nan)], of(json!({"f": {"type": "number"}}), json!([]))).unwrap_err();
    assert!(error.starts_with("the column `f`: JSON has no number"), "{error}");
    let error = encoded(vec![("a", text(None))], of(json!({"b": nullable}), json!([]))).unwrap_err();
    assert!(error.starts_with("the column `a` has no property in the JSON Schema, which has b;"), "{error}");
    let error = encoded(vec![("a", text(None))], of(json!({"a": nullable, "b": nullable}), json!(["b"])))
        .unwrap_err();
    assert_eq!(error, "the property `b` is required, and there is no such column");
}
