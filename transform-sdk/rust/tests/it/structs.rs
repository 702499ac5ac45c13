//! Columns that are structs, inside lists and maps too.

use gristmill_transform::testing::RowHarness;
use gristmill_transform::{
    ColumnTransform, Columns, Compute, Context, Elements, Entries, List, Map, Reject, Row, RowEdit,
    RowOutcome, Value,
};
use serde_json::json;

#[derive(Value)]
struct Line<'a> {
    sku: &'a str,
    #[value(name = "unit-price")]
    price: Option<i64>,
    discount: Option<Discount<'a>>,
}

#[derive(Value)]
struct Discount<'a> {
    percent: i32,
    codes: List<'a, &'a str>,
}

#[derive(Row)]
struct Order<'a> {
    lines: List<'a, Line<'a>>,
    #[row(path = "customer.address")]
    address: Option<Address<'a>>,
    stock: Option<Map<'a, &'a str, Line<'a>>>,
}

#[derive(Value)]
struct Address<'a> {
    city: Option<&'a str>,
}

#[derive(Compute)]
struct Total {
    sum: i64,
    by_sku: Entries<String, Option<i64>>,
    codes: Elements<Code>,
}

#[derive(Compute)]
struct Code {
    code: String,
    #[compute(name = "percent-off")]
    percent: i32,
}

#[derive(Columns)]
struct Computed<'a> {
    #[column(add)]
    total: Option<Total>,
    #[column(replace = "customer.address")]
    city: Option<&'a str>,
    #[column(add)]
    in_stock: Option<i64>,
}

#[gristmill_transform::row]
fn totals<'a>(
    order: &Order<'a>,
    _: &Context,
    _: &mut RowEdit<Computed<'a>>,
) -> Result<RowOutcome<Computed<'a>>, Reject> {
    let prices = order.lines.iter().map(|line| (line.sku.to_owned(), line.price));
    let codes = order.lines.iter().filter_map(|line| line.discount).flat_map(|discount| {
        let code = move |code: &str| Code { code: code.to_owned(), percent: discount.percent };
        discount.codes.iter().map(code)
    });
    let total = Total {
        sum: order.lines.iter().filter_map(|line| line.price).sum(),
        by_sku: Entries(prices.collect()),
        codes: Elements(codes.collect()),
    };
    let in_stock = order.stock.map(|stock| stock.iter().filter_map(|(_, line)| line.price).sum());
    Ok(RowOutcome::Keep(Computed {
        total: (!order.lines.is_empty()).then_some(total),
        city: order.address.as_ref().and_then(|address| address.city),
        in_stock,
    }))
}

#[test]
fn structs_are_read_and_computed_wherever_they_are() {
    let mut harness = RowHarness::<totals::Transform>::new(json!({})).unwrap();
    let answers = harness.apply(&[
        json!({
            "lines": [
                {"sku": "a", "unit-price": 5, "discount": {"percent": 10, "codes": ["X", "Y"]}},
                {"sku": "b", "unit-price": null, "discount": null},
            ],
            "customer": {"address": {"city": "Bern"}},
            "stock": {"a": {"sku": "a", "unit-price": 40}, "b": {"sku": "b"}},
        }),
        json!({"lines": [], "customer": {"address": null}}),
        json!({"lines": [{"sku": "c", "unit-price": 7}], "customer": {"address": {"city": null}}, "stock": {}}),
    ]);
    let computed: Vec<_> = answers.iter().map(|answer| json!(answer.kept().unwrap().computed)).collect();
    let codes = json!([{"code": "X", "percent-off": 10}, {"code": "Y", "percent-off": 10}]);
    assert_eq!(
        computed,
        [
            json!({
                "total": {"sum": 5, "by_sku": {"a": 5, "b": null}, "codes": codes},
                "address": "Bern",
                "in_stock": 40,
            }),
            json!({"total": null, "address": null, "in_stock": null}),
            json!({"total": {"sum": 7, "by_sku": {"c": 7}, "codes": []}, "address": null, "in_stock": 0}),
        ]
    );
}

/// What an author is told at the start.
#[test]
fn a_struct_is_described_by_its_members() {
    let described: Vec<_> = totals::Transform::needs().into_iter().map(|need| need.data_type).collect();
    assert_eq!(
        described[0],
        "list<struct<sku: string, unit-price: int64, discount: struct<percent: int32, codes: list<string>>>>"
    );
    assert_eq!(described[1], "struct<city: string>");
}

/// Names that generated code might have for itself.
#[derive(Value, Compute)]
struct Named {
    valid: bool,
    nothing: i64,
}

#[test]
fn members_have_any_name() {
    assert_eq!(<Named as Value<'_>>::describe(), "struct<valid: bool, nothing: int64>");
    let names: Vec<_> = <Named as Compute>::fields().into_iter().map(|field| field.name).collect();
    assert_eq!(names, ["", "valid", "nothing"]);
}
