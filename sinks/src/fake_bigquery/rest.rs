//! The part of BigQuery's REST interface that makes and changes tables.

use std::sync::{Arc, Mutex, PoisonError};

use axum::Router;
use axum::body::Bytes;
use axum::extract::{Path, State as Extracted};
use axum::http::{HeaderMap, StatusCode};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use serde_json::{Value, json};

use super::{Call, Effect, State, Table};
use crate::bigquery::columns::{Column, Repetition};

type Shared = Arc<Mutex<State>>;
type Outcome = Result<Value, (StatusCode, &'static str, String)>;

pub(super) fn router(state: Shared) -> Router {
    Router::new()
        .route("/bigquery/v2/projects/{project}/datasets", post(make_dataset))
        .route("/bigquery/v2/projects/{project}/datasets/{dataset}/tables", post(make_table))
        .route(
            "/bigquery/v2/projects/{project}/datasets/{dataset}/tables/{table}",
            get(table).patch(change_table).post(test_permissions),
        )
        .with_state(state)
}

/// Carries a call out under one lock, with what is planned for it.
async fn carry_out(state: &Shared, effect: impl FnOnce(&mut State) -> Outcome) -> Response {
    let (outcome, fault) = {
        let mut state = state.lock().unwrap_or_else(PoisonError::into_inner);
        let fault = state.fault(Call::Rest);
        if let Some(Effect::Refuse(_) | Effect::Break) = fault {
            return refused(StatusCode::SERVICE_UNAVAILABLE, "backendError", "planned");
        }
        (effect(&mut state), fault)
    };
    match fault {
        Some(Effect::Slow(by)) => tokio::time::sleep(by).await,
        Some(_) => return refused(StatusCode::INTERNAL_SERVER_ERROR, "backendError", "the reply is lost"),
        None => {}
    }
    match outcome {
        Ok(answer) => (StatusCode::OK, answer.to_string()).into_response(),
        Err((status, reason, message)) => refused(status, reason, &message),
    }
}

fn refused(status: StatusCode, reason: &str, message: &str) -> Response {
    let error = json!({"code": status.as_u16(), "message": message, "errors": [{"reason": reason, "message": message}]});
    (status, json!({ "error": error }).to_string()).into_response()
}

fn not_found(what: &str, name: &str) -> (StatusCode, &'static str, String) {
    (StatusCode::NOT_FOUND, "notFound", format!("Not found: {what} {name}"))
}

fn body(bytes: &Bytes) -> Result<Value, (StatusCode, &'static str, String)> {
    serde_json::from_slice(bytes).map_err(|e| (StatusCode::BAD_REQUEST, "invalid", e.to_string()))
}

async fn make_dataset(
    Extracted(state): Extracted<Shared>,
    Path(project): Path<String>,
    bytes: Bytes,
) -> Response {
    carry_out(&state, |state| {
        let dataset = body(&bytes)?;
        let name = dataset["datasetReference"]["datasetId"].as_str().unwrap_or_default();
        let path = format!("projects/{project}/datasets/{name}");
        if state.projects.as_ref().is_some_and(|projects| !projects.contains(&project)) {
            return Err(not_found("Project", &project));
        }
        if !state.datasets.insert(path) {
            return Err((
                StatusCode::CONFLICT,
                "duplicate",
                format!("Already Exists: Dataset {project}:{name}"),
            ));
        }
        Ok(dataset)
    })
    .await
}

async fn make_table(
    Extracted(state): Extracted<Shared>,
    Path((project, dataset)): Path<(String, String)>,
    bytes: Bytes,
) -> Response {
    carry_out(&state, |state| {
        let path = format!("projects/{project}/datasets/{dataset}");
        if !state.datasets.contains(&path) {
            return Err(not_found("Dataset", &format!("{project}:{dataset}")));
        }
        let mut resource = body(&bytes)?;
        let name = resource["tableReference"]["tableId"].as_str().unwrap_or_default();
        let path = format!("{path}/tables/{name}");
        if state.tables.contains_key(&path) {
            let text = format!("Already Exists: Table {project}:{dataset}.{name}");
            return Err((StatusCode::CONFLICT, "duplicate", text));
        }
        let columns = Column::all_of_rest(&resource["schema"]);
        resource["etag"] = json!(state.etag());
        let hidden = state.lag;
        state.tables.insert(path, Table { hidden, ..Table::new(columns, resource.clone()) });
        Ok(resource)
    })
    .await
}

async fn table(
    Extracted(state): Extracted<Shared>,
    Path((project, dataset, name)): Path<(String, String, String)>,
) -> Response {
    carry_out(&state, |state| {
        let path = format!("projects/{project}/datasets/{dataset}/tables/{name}");
        let table = state.tables.get(&path);
        table.map(|table| table.resource.clone()).ok_or_else(|| not_found("Table", &path))
    })
    .await
}

/// `tables/{table}:testIamPermissions`
async fn test_permissions(
    Extracted(state): Extracted<Shared>,
    Path((project, dataset, name)): Path<(String, String, String)>,
    bytes: Bytes,
) -> Response {
    carry_out(&state, |state| {
        let Some(name) = name.strip_suffix(":testIamPermissions") else {
            return Err(not_found("Method", &name));
        };
        let path = format!("projects/{project}/datasets/{dataset}/tables/{name}");
        if !state.tables.contains_key(&path) {
            return Err(not_found("Table", &path));
        }
        let asked = body(&bytes)?;
        let asked = asked["permissions"].as_array().into_iter().flatten().filter_map(Value::as_str);
        let granted: Vec<&str> =
            asked.filter(|name| !state.denied.iter().any(|denied| denied == name)).collect();
        Ok(json!({ "permissions": granted }))
    })
    .await
}

/// Columns may be added and made nullable, and nothing else.
async fn change_table(
    Extracted(state): Extracted<Shared>,
    Path((project, dataset, name)): Path<(String, String, String)>,
    headers: HeaderMap,
    bytes: Bytes,
) -> Response {
    carry_out(&state, |state| {
        let path = format!("projects/{project}/datasets/{dataset}/tables/{name}");
        let change = body(&bytes)?;
        let (etag, lag) = (state.etag(), state.lag);
        let table = state.tables.get_mut(&path).ok_or_else(|| not_found("Table", &path))?;
        let wanted = headers.get("if-match").and_then(|etag| etag.to_str().ok());
        if wanted.is_some_and(|wanted| table.resource["etag"] != wanted) {
            return Err((StatusCode::PRECONDITION_FAILED, "conditionNotMet", "Precondition Failed".into()));
        }
        let columns = Column::all_of_rest(&change["schema"]);
        if !follows(&table.columns, &columns) {
            let text = format!("Provided Schema does not match Table {path}");
            return Err((StatusCode::BAD_REQUEST, "invalid", text));
        }
        table.shown = Some(std::mem::replace(&mut table.columns, columns));
        table.hidden = lag;
        table.resource["schema"] = change["schema"].clone();
        table.resource["etag"] = json!(etag);
        Ok(table.resource.clone())
    })
    .await
}

fn follows(old: &[Column], new: &[Column]) -> bool {
    let is_kept = |old: &Column| {
        new.iter().any(|new| {
            let same =
                old.name == new.name && old.data_type == new.data_type && follows(&old.columns, &new.columns);
            same && (old.mode == new.mode
                || new.mode == Repetition::Nullable && old.mode == Repetition::Required)
        })
    };
    let is_old = |new: &&Column| old.iter().any(|old| old.name == new.name);
    old.iter().all(is_kept)
        && new.iter().filter(|new| !is_old(new)).all(|new| new.mode != Repetition::Required)
}
