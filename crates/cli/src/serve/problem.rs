//! What can be wrong with a request, as JSON that says what and what to do.

use std::time::Duration;

use axum::http::{HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};

use super::response::json;
use super::upload::{CURLS, Refusal};

/// Why a request has no detections.
#[derive(Debug, Clone, PartialEq)]
pub enum Problem {
    /// A query that means nothing.
    Query(String),
    /// No byte in the body.
    Empty,
    /// A body over the limit, or an image in it.
    TooLarge { what: &'static str, most: usize },
    /// A form with more than this besides its image.
    FormTooLarge(usize),
    /// An option in the body.
    Misplaced(&'static str),
    /// A type of body that is not read.
    Type(String),
    /// A form without a file, or a broken one.
    Form(String),
    /// JSON without an image, or broken.
    Json(String),
    /// An image with more pixels than allowed.
    TooManyPixels { width: usize, height: usize, most: u64 },
    /// No image, or a broken one.
    Unreadable(String),
    /// The body did not come in time.
    Slow(Duration),
    /// No free slot.
    Busy { retry_after: u64 },
    /// The model was not done in time.
    Late(Duration),
    /// The body broke off.
    Torn(String),
    /// The model failed; no fault of the request.
    Failed(String),
    /// No such path.
    NoRoute,
    /// Another method.
    Method,
}

impl Problem {
    /// A word for programs; the metrics' label too.
    pub fn code(&self) -> &'static str {
        match self {
            Self::Query(_) | Self::Misplaced(_) => "bad_query",
            Self::Empty => "empty_body",
            Self::TooLarge { .. } | Self::FormTooLarge(_) => "body_too_large",
            Self::Type(_) => "unsupported_type",
            Self::Form(_) => "bad_form",
            Self::Json(_) => "bad_json",
            Self::TooManyPixels { .. } => "too_many_pixels",
            Self::Unreadable(_) => "unreadable_image",
            Self::Slow(_) => "slow_body",
            Self::Busy { .. } => "queue_full",
            Self::Late(_) => "timed_out",
            Self::Torn(_) => "body_cut",
            Self::Failed(_) => "detector_failed",
            Self::NoRoute => "no_such_route",
            Self::Method => "wrong_method",
        }
    }

    /// Of an image that could not be decoded: the decoder's word, without what a file of a data set would need.
    pub fn unreadable(error: docent_coco::Error) -> Self {
        Self::Unreadable(match error {
            docent_coco::Error::Decode { reason, .. } => format!("the image cannot be read: {reason}"),
            other => other.to_string(),
        })
    }

    fn status(&self) -> StatusCode {
        match self {
            Self::Query(_) | Self::Misplaced(_) => StatusCode::BAD_REQUEST,
            Self::Empty | Self::Torn(_) | Self::Form(_) | Self::Json(_) => StatusCode::BAD_REQUEST,
            Self::Type(_) => StatusCode::UNSUPPORTED_MEDIA_TYPE,
            Self::TooLarge { .. } | Self::FormTooLarge(_) | Self::TooManyPixels { .. } => StatusCode::PAYLOAD_TOO_LARGE,
            Self::Unreadable(_) => StatusCode::UNPROCESSABLE_ENTITY,
            Self::Slow(_) => StatusCode::REQUEST_TIMEOUT,
            Self::Busy { .. } => StatusCode::SERVICE_UNAVAILABLE,
            Self::Late(_) => StatusCode::GATEWAY_TIMEOUT,
            Self::Failed(_) => StatusCode::INTERNAL_SERVER_ERROR,
            Self::NoRoute => StatusCode::NOT_FOUND,
            Self::Method => StatusCode::METHOD_NOT_ALLOWED,
        }
    }

    /// What happened, and what to do.
    fn words(&self) -> (String, String) {
        const ROUTES: &str = "GET /, POST /v1/detect, GET /healthz, GET /metrics";
        const WAYS: &str = "send the image as it is: curl --data-binary @picture.jpg URL; as a form's file: curl -F \
                            file=@picture.jpg URL; or as JSON, {\"image\": BASE64} with content-type: application/json";
        const QUERY: &str = "use ?threshold=0.5 (a score from 0 to 1) and ?exif=apply or ignore";
        let (what, hint) = match self {
            Self::Query(what) => (what.clone(), QUERY),
            Self::Misplaced(option) => (format!("`{option}` stands in the body; it belongs into the query"), QUERY),
            Self::Empty => ("the body is empty, or its image is".to_owned(), WAYS),
            Self::Type(found) if found == CURLS => {
                (format!("the body is of type {CURLS} and is no image (curl -d drops bytes: use --data-binary)"), WAYS)
            }
            Self::Type(found) => (format!("a body of type {found} is not read"), WAYS),
            Self::Form(what) | Self::Json(what) => (what.clone(), WAYS),
            Self::TooLarge { what, most } => (
                format!("the {what} has more than {most} bytes"),
                "send a smaller image, or start the service with a larger --max-bytes",
            ),
            Self::FormTooLarge(most) => (
                format!("the form has more than {most} bytes besides its first file; other files count"),
                "send one file alone, and short fields",
            ),
            Self::TooManyPixels { width, height, most } => (
                format!("the image has {width}x{height} pixels, more than {most}"),
                "make the image smaller, or start the service with a larger --max-pixels",
            ),
            Self::Unreadable(what) => (what.clone(), "send a whole JPEG, PNG, WebP, BMP or TIFF file"),
            Self::Slow(limit) => (
                format!("the body did not arrive within {} s", limit.as_secs_f64()),
                "send it faster, or a smaller image",
            ),
            Self::Busy { .. } => {
                ("as many requests are waiting as may".to_owned(), "try again after the seconds that Retry-After names")
            }
            Self::Late(limit) => (
                format!("the detector was not done within {} s", limit.as_secs_f64()),
                "try again when fewer are asking, or start the service with a larger --time",
            ),
            Self::Torn(what) => (format!("the body broke off: {what}"), "send it again"),
            Self::Failed(what) => {
                (format!("the detector failed: {what}"), "another image may do; if none does, restart the service")
            }
            Self::NoRoute => ("there is nothing at this path".to_owned(), ROUTES),
            Self::Method => ("this path has another method".to_owned(), ROUTES),
        };
        (what, hint.to_owned())
    }
}

impl From<Refusal> for Problem {
    fn from(refusal: Refusal) -> Self {
        match refusal {
            Refusal::Type(found) => Self::Type(found),
            Refusal::Empty => Self::Empty,
            Refusal::TooLarge { most } => Self::TooLarge { what: "image", most },
            Refusal::FormTooLarge { most } => Self::FormTooLarge(most),
            Refusal::Misplaced(option) => Self::Misplaced(option),
            Refusal::Form(what) => Self::Form(what),
            Refusal::Json(what) => Self::Json(what),
        }
    }
}

impl IntoResponse for Problem {
    fn into_response(self) -> Response {
        let (message, hint) = self.words();
        let body = serde_json::json!({ "error": { "code": self.code(), "message": message, "hint": hint } });
        let mut response = json(self.status(), &body);
        if let Self::Busy { retry_after } = self {
            response.headers_mut().insert(header::RETRY_AFTER, HeaderValue::from(retry_after));
        }
        // For the metrics.
        response.extensions_mut().insert(self.code());
        response
    }
}
