//! Answers in JSON.

use axum::http::{HeaderName, StatusCode, header};
use axum::response::{IntoResponse, Response};

/// An answer with a JSON body.
pub fn json(status: StatusCode, body: &serde_json::Value) -> Response {
    let headers: [(HeaderName, &str); 2] =
        [(header::CONTENT_TYPE, "application/json"), (header::X_CONTENT_TYPE_OPTIONS, "nosniff")];
    (status, headers, body.to_string()).into_response()
}
