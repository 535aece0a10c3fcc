//! The HTTP service: a page, a JSON route with limits, health and metrics, over one model on one thread of its own.
//!
//! ```text
//! GET  /            the page
//! POST /v1/detect   an image in (its bytes, a form's file, or base64 in JSON), detections out (JSON); ?threshold=0.5&exif=apply
//! GET  /healthz     whether the model still works
//! GET  /metrics     Prometheus' text
//! ```
//!
//! A request holds one of `queue + 1` slots from before its body is read until the model is done with it, so that memory is bounded by
//! slots times the largest body (one and a half times the largest image, as base64), whatever clients do.

mod app;
mod detect;
mod metrics;
mod problem;
mod response;
#[cfg(test)]
mod tests;
mod upload;
mod worker;

use std::future::Future;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use axum::Router;
use axum::extract::{Request, State};
use axum::http::{HeaderValue, Method, StatusCode, header};
use axum::middleware::{Next, from_fn_with_state};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use tokio::net::TcpListener;
use tokio::sync::Semaphore;
use tower_http::cors::{AllowOrigin, CorsLayer};

use app::App;
pub use app::Limits;
use metrics::Metrics;
use problem::Problem;
use response::json;
use worker::Worker;
pub use worker::{Found, Model};

/// Serves `model` on `listener` until `stop` is done; then answers what is being asked and returns. Pages of `origins` (`*`: of any)
/// may ask from a browser.
///
/// # Errors
/// When the model's thread cannot be started or the network fails.
pub async fn serve(
    listener: TcpListener,
    model: Model,
    about: serde_json::Value,
    threshold: f32,
    limits: Limits,
    origins: &[HeaderValue],
    stop: impl Future<Output = ()> + Send + 'static,
) -> Result<()> {
    let grace = limits.time + Duration::from_secs(2);
    let app = Arc::new(App {
        slots: Arc::new(Semaphore::new(limits.queue + 1)),
        worker: Worker::start(model).context("cannot start the model's thread")?,
        metrics: Metrics::default(),
        limits,
        threshold,
        about,
    });
    let (stopping, stopped) = tokio::sync::oneshot::channel::<()>();
    let server = axum::serve(listener, router(Arc::clone(&app), origins)).with_graceful_shutdown(async move {
        stop.await;
        let _ = stopping.send(());
    });
    // A client that never ends its request must not keep the program.
    let deadline = async {
        if stopped.await.is_err() {
            std::future::pending::<()>().await;
        }
        tokio::time::sleep(grace).await;
    };
    tokio::select! {
        outcome = server.into_future() => outcome.context("the service failed")?,
        () = deadline => {}
    }
    Ok(())
}

fn router(app: Arc<App>, origins: &[HeaderValue]) -> Router {
    let routes = Router::new()
        .route("/", get(page))
        .route("/v1/detect", post(detect::handle))
        .route("/healthz", get(health))
        .route("/metrics", get(metrics))
        .fallback(|| async { Problem::NoRoute.into_response() })
        .method_not_allowed_fallback(|| async { Problem::Method.into_response() });
    let routes = if origins.is_empty() { routes } else { routes.layer(cross_origin(origins)) };
    routes.layer(from_fn_with_state(Arc::clone(&app), count)).with_state(app)
}

/// Answers preflight requests, and tells browsers whose pages may read an answer.
fn cross_origin(origins: &[HeaderValue]) -> CorsLayer {
    let allowed = match origins.iter().any(|origin| origin == "*") {
        true => AllowOrigin::any(),
        false => AllowOrigin::list(origins.iter().cloned()),
    };
    CorsLayer::new()
        .allow_origin(allowed)
        .allow_methods([Method::GET, Method::POST])
        .allow_headers([header::CONTENT_TYPE])
        .expose_headers([header::RETRY_AFTER])
        .max_age(Duration::from_secs(600))
}

/// Counts every request with its status and time.
async fn count(State(app): State<Arc<App>>, request: Request, next: Next) -> Response {
    const ROUTES: [&str; 4] = ["/", "/v1/detect", "/healthz", "/metrics"];
    let path = request.uri().path();
    let route = ROUTES.into_iter().find(|route| *route == path).unwrap_or("other");
    let start = Instant::now();
    let response = next.run(request).await;
    let error = response.extensions().get::<&'static str>().copied();
    app.metrics.request(route, response.status().as_u16(), start.elapsed().as_secs_f64(), error);
    response
}

/// Nothing but what stands in the page may run there or be loaded.
const POLICY: &str = "default-src 'none'; style-src 'unsafe-inline'; script-src 'unsafe-inline'; img-src blob: data:; \
                      connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'";

async fn page() -> Response {
    let headers = [
        (header::CONTENT_TYPE, "text/html; charset=utf-8"),
        (header::CONTENT_SECURITY_POLICY, POLICY),
        (header::X_CONTENT_TYPE_OPTIONS, "nosniff"),
        (header::CACHE_CONTROL, "no-cache"),
    ];
    (headers, include_str!("page.html")).into_response()
}

async fn health(State(app): State<Arc<App>>) -> Response {
    let works = app.worker.works();
    let body = serde_json::json!({
        "status": if works { "ok" } else { "failed" },
        "model": app.about,
        "threshold": app.threshold,
        "limits": {
            "bytes": app.limits.bytes,
            "pixels": app.limits.pixels,
            "seconds": app.limits.time.as_secs_f64(),
            "queue": app.limits.queue,
        },
    });
    json(if works { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE }, &body)
}

async fn metrics(State(app): State<Arc<App>>) -> Response {
    let text = app.metrics.text(app.busy().saturating_sub(1), app.limits.queue);
    ([(header::CONTENT_TYPE, "text/plain; version=0.0.4; charset=utf-8")], text).into_response()
}
