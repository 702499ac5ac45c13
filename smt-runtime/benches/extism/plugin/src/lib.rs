//! The example `typed-orders` as an Extism plug-in: JSON in and out, as its PDK documents it.

use extism_pdk::{FnResult, Json, config, plugin_fn};
use serde::{Deserialize, Serialize};

#[derive(Deserialize, Serialize)]
struct Customer {
    name: Option<String>,
    email: Option<String>,
    #[serde(skip_serializing)]
    #[expect(dead_code, reason = "left out")]
    card: Option<String>,
}

#[derive(Deserialize, Serialize)]
struct Order {
    customer: Option<Customer>,
    amount_cents: i64,
    #[serde(rename(serialize = "ordered_at"))]
    created_at: Option<String>,
    test: Option<bool>,
    text0: Option<String>,
    text1: Option<String>,
    text2: Option<String>,
    text3: Option<String>,
    text4: Option<String>,
    text5: Option<String>,
    text6: Option<String>,
    text7: Option<String>,
    text8: Option<String>,
    number0: Option<i64>,
    number1: Option<i64>,
    number2: Option<i64>,
    number3: Option<i64>,
    number4: Option<i64>,
    #[serde(skip_deserializing)]
    email_domain: Option<String>,
}

#[derive(Serialize)]
#[serde(rename_all = "snake_case")]
enum Verdict {
    Keep { output: &'static str, order: Order },
    Drop,
    Reject { code: &'static str },
}

fn judged(mut order: Order, high_value_cents: i64) -> Verdict {
    if order.test == Some(true) {
        return Verdict::Drop;
    }
    if order.amount_cents < 0 {
        return Verdict::Reject { code: "NEGATIVE_AMOUNT" };
    }
    if let Some(email) = order.customer.as_mut().and_then(|customer| customer.email.as_mut()) {
        order.email_domain = email.rsplit_once('@').map(|(_, domain)| domain.to_owned());
        *email = format!("***@{}", order.email_domain.as_deref().unwrap_or("***"));
    }
    let output = if order.amount_cents >= high_value_cents { "high_value" } else { "main" };
    Verdict::Keep { output, order }
}

fn high_value_cents() -> FnResult<i64> {
    Ok(config::get("high_value_cents")?.unwrap_or_default().parse()?)
}

#[plugin_fn]
pub fn one(Json(order): Json<Order>) -> FnResult<Json<Verdict>> {
    Ok(Json(judged(order, high_value_cents()?)))
}

#[plugin_fn]
pub fn many(Json(orders): Json<Vec<Order>>) -> FnResult<Json<Vec<Verdict>>> {
    let most = high_value_cents()?;
    Ok(Json(orders.into_iter().map(|order| judged(order, most)).collect()))
}
