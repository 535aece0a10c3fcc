//! The service on a loopback port, with a model that does what a test wants.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use docent_coco::Rgb8;
use serde_json::Value;

use super::*;

/// A service on its own thread; it stops when dropped, and the test fails if it does not.
struct Service {
    address: SocketAddr,
    stop: Option<tokio::sync::oneshot::Sender<()>>,
    thread: Option<std::thread::JoinHandle<()>>,
}

impl Service {
    fn start(limits: Limits, model: Model) -> Self {
        Self::start_for(false, limits, model)
    }

    /// Pages of http://example.org may ask.
    fn start_for(with_origin: bool, limits: Limits, model: Model) -> Self {
        let (stop, stopped) = tokio::sync::oneshot::channel::<()>();
        let (told, address) = std::sync::mpsc::channel();
        let thread = std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
            runtime.block_on(async {
                let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
                told.send(listener.local_addr().unwrap()).unwrap();
                let about = serde_json::json!({ "recipe": "made", "sha256": "00", "classes": ["square"] });
                let origins = [HeaderValue::from_static("http://example.org")];
                let origins = if with_origin { &origins[..] } else { &[] };
                serve(listener, model, about, 0.5, limits, origins, async { drop(stopped.await) }).await.unwrap();
            });
        });
        Self { address: address.recv().unwrap(), stop: Some(stop), thread: Some(thread) }
    }

    fn stop(&mut self) {
        if let (Some(stop), Some(thread)) = (self.stop.take(), self.thread.take()) {
            let _ = stop.send(());
            thread.join().unwrap();
        }
    }

    /// Sends a request and reads the whole answer.
    fn ask(&self, method: &str, path: &str, body: &[u8]) -> Answer {
        self.ask_with(method, path, &[], body)
    }

    /// [`Self::ask`] with more headers.
    fn ask_with(&self, method: &str, path: &str, headers: &[&str], body: &[u8]) -> Answer {
        let length = format!("Content-Length: {}", body.len());
        let headers = [&["Host: x", "Connection: close", length.as_str()], headers].concat().join("\r\n");
        let head = format!("{method} {path} HTTP/1.1\r\n{headers}\r\n\r\n");
        let mut stream = TcpStream::connect(self.address).unwrap();
        stream.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
        stream.write_all(head.as_bytes()).unwrap();
        stream.write_all(body).unwrap();
        Answer::read(&mut stream)
    }

    fn detect(&self, query: &str, body: &[u8]) -> Answer {
        self.ask("POST", &format!("/v1/detect{query}"), body)
    }

    fn metric(&self, line: &str) -> f64 {
        let text = self.ask("GET", "/metrics", b"").body;
        let found = text.lines().find_map(|l| l.strip_prefix(line)?.strip_prefix(' '));
        found.unwrap_or_else(|| panic!("no {line} in {text}")).parse().unwrap()
    }
}

impl Drop for Service {
    fn drop(&mut self) {
        if !std::thread::panicking() {
            self.stop();
        }
    }
}

struct Answer {
    status: u16,
    head: String,
    body: String,
}

impl Answer {
    fn read(stream: &mut TcpStream) -> Self {
        let mut bytes = Vec::new();
        stream.read_to_end(&mut bytes).unwrap();
        let text = String::from_utf8(bytes).unwrap();
        let (head, body) = text.split_once("\r\n\r\n").unwrap_or_else(|| panic!("no answer: {text:?}"));
        let status = head.split(' ').nth(1).unwrap().parse().unwrap();
        Self { status, head: head.to_lowercase(), body: body.to_owned() }
    }

    fn json(&self) -> Value {
        serde_json::from_str(&self.body).unwrap_or_else(|e| panic!("{e}: {}", self.body))
    }

    /// The code of an error, whose other fields say something.
    fn error(&self) -> (u16, String) {
        let error = self.json()["error"].clone();
        for key in ["message", "hint"] {
            assert!(error[key].as_str().is_some_and(|text| text.len() > 5), "{error}");
        }
        assert!(self.head.contains("content-type: application/json"), "{}", self.head);
        (self.status, error["code"].as_str().unwrap().to_owned())
    }
}

/// A square of 40% and one of 60%, wherever.
fn squares() -> Model {
    Box::new(|image| {
        let square = |score: f32| Found {
            label: "square".into(),
            category_id: 3,
            score,
            bbox: [1.0, 2.0, image.width as f32 / 2.0, image.height as f32 / 2.0],
        };
        Ok(vec![square(0.6), square(0.4)])
    })
}

fn picture(width: usize, height: usize) -> Vec<u8> {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("x.png");
    Rgb8::filled(width, height, [200, 30, 30]).save_png(&path).unwrap();
    std::fs::read(path).unwrap()
}

#[test]
fn a_picture_is_answered_with_its_boxes() {
    let service = Service::start(Limits::default(), squares());
    let answer = service.detect("", &picture(40, 20));
    assert_eq!(answer.status, 200, "{}", answer.body);
    let json = answer.json();
    assert_eq!((json["image"]["width"].as_u64(), json["image"]["height"].as_u64()), (Some(40), Some(20)));
    let found = json["detections"].as_array().unwrap();
    assert_eq!(found.len(), 1, "the usual threshold is 0.5");
    assert_eq!((found[0]["label"].as_str(), found[0]["category_id"].as_u64()), (Some("square"), Some(3)));
    assert_eq!(found[0]["bbox"], serde_json::json!([1.0, 2.0, 20.0, 10.0]));
    assert!(json["seconds"]["detect"].as_f64().unwrap() >= 0.0);
    assert_eq!(service.detect("?threshold=0", &picture(40, 20)).json()["detections"].as_array().unwrap().len(), 2);
    assert_eq!(
        service.detect("?threshold=0.7&exif=ignore", &picture(4, 2)).json()["detections"],
        serde_json::json!([])
    );
}

#[test]
fn what_is_wrong_is_told_with_a_hint() {
    let limits = Limits { bytes: 4000, pixels: 10_000, time: Duration::from_secs(5), queue: 2 };
    let service = Service::start(limits, squares());
    let whole = picture(40, 20);
    for (query, body, wanted) in [
        ("", &b""[..], (400, "empty_body")),
        ("", &b"no picture at all"[..], (422, "unreadable_image")),
        ("", &whole[..whole.len() - 20], (422, "unreadable_image")),
        ("?threshold=2", &whole[..], (400, "bad_query")),
        ("?threshold=nan", &whole[..], (400, "bad_query")),
        ("?thresold=0.5", &whole[..], (400, "bad_query")),
        ("?exif=maybe", &whole[..], (400, "bad_query")),
        ("", &[0u8; 100_000][..], (413, "body_too_large")),
        ("", &picture(200, 100)[..], (413, "too_many_pixels")),
    ] {
        let answer = service.detect(query, body);
        assert_eq!(answer.error(), (wanted.0, wanted.1.to_owned()), "{query} {} bytes: {}", body.len(), answer.body);
    }
    let broken = service.detect("", b"no picture at all").json()["error"]["message"].as_str().unwrap().to_owned();
    assert!(broken.contains("none of JPEG, PNG") && !broken.contains("annotations"), "{broken}");
    assert_eq!(service.ask("GET", "/nothing", b"").error(), (404, "no_such_route".to_owned()));
    assert_eq!(service.ask("GET", "/v1/detect", b"").error(), (405, "wrong_method".to_owned()));
    // A body that does not say how long it is, and is too long.
    let head = b"POST /v1/detect HTTP/1.1\r\nHost: x\r\nConnection: close\r\nTransfer-Encoding: chunked\r\n\r\n";
    let chunk = [b"400\r\n", &[0u8; 1024][..], b"\r\n"].concat();
    let mut stream = TcpStream::connect(service.address).unwrap();
    // In one piece: the service answers, and hangs up, before the last chunk.
    stream.write_all(&[&head[..], &chunk.repeat(5), b"0\r\n\r\n"].concat()).unwrap();
    assert_eq!(Answer::read(&mut stream).error(), (413, "body_too_large".to_owned()));
    assert_eq!(service.metric("docent_errors_total{code=\"body_too_large\"}"), 2.0);
    assert_eq!(service.metric("docent_errors_total{code=\"unreadable_image\"}"), 3.0);
    // None of that has cost a slot.
    assert_eq!((service.detect("", &whole).status, service.metric("docent_queue_length")), (200, 0.0));
}

/// A form with `file` as the file `file`, and its content type.
fn form(file: &[u8]) -> (String, Vec<u8>) {
    let head = b"--line\r\nContent-Disposition: form-data; name=\"file\"; filename=\"x.png\"\r\nContent-Type: image/png\r\n\r\n";
    let body = [&head[..], file, b"\r\n--line--\r\n"].concat();
    ("Content-Type: multipart/form-data; boundary=line".to_owned(), body)
}

#[test]
fn forms_and_base64_give_what_the_bytes_give() {
    use base64::prelude::{BASE64_STANDARD, Engine};
    let service = Service::start(Limits::default(), squares());
    let image = picture(40, 20);
    let expected = service.detect("", &image).json()["detections"].clone();
    assert_eq!(expected.as_array().unwrap().len(), 1);
    let (form_type, form) = form(&image);
    let base64 = BASE64_STANDARD.encode(&image);
    let json = "Content-Type: application/json";
    for (kind, body) in [
        (form_type.as_str(), form.clone()),
        (json, format!("{{\"image\": \"{base64}\"}}").into_bytes()),
        (json, format!("{{\"image\": \"data:image/png;base64,{base64}\"}}").into_bytes()),
        ("Content-Type: image/png", image.clone()),
        ("Content-Type: application/x-www-form-urlencoded", image.clone()),
    ] {
        let answer = service.ask_with("POST", "/v1/detect", &[kind], &body);
        assert_eq!((answer.status, &answer.json()["detections"]), (200, &expected), "{kind}: {}", answer.body);
    }
    let note = b"--line\r\nContent-Disposition: form-data; name=\"note\"\r\n\r\nhello\r\n--line--\r\n";
    let curls = "Content-Type: application/x-www-form-urlencoded";
    let dropped: Vec<u8> = image.iter().copied().filter(|byte| !b"\0\r\n".contains(byte)).collect();
    let misplaced = service.ask_with("POST", "/v1/detect", &[json], br#"{"image":"aGVsbG8=","threshold":0.3}"#);
    assert_eq!(misplaced.error(), (400, "bad_query".to_owned()));
    assert!(misplaced.json()["error"]["hint"].as_str().unwrap().contains("?threshold="), "{}", misplaced.body);
    for (kind, body, wanted, part) in [
        (form_type.as_str(), &note[..], (400, "bad_form"), "its parts: note"),
        (form_type.as_str(), &form[..form.len() - 30], (400, "bad_form"), "form"),
        ("Content-Type: multipart/form-data", &form, (400, "bad_form"), "boundary"),
        (json, br#"{"image":"%%%"}"#, (400, "bad_json"), "base64"),
        (json, b"{}", (400, "bad_json"), "`image`"),
        (json, br#"{"image":"aGVsbG8="}"#, (422, "unreadable_image"), "none of JPEG"),
        ("Content-Type: text/plain", &image, (415, "unsupported_type"), "text/plain"),
        // curl -d: text, a file's name, or a file without its zero bytes and line breaks.
        (curls, b"image=x.png", (415, "unsupported_type"), "x-www-form-urlencoded"),
        (curls, &dropped, (415, "unsupported_type"), "--data-binary"),
        (json, br#"["aGVsbG8=",null,null]"#, (400, "bad_json"), "a list"),
        ("Content-Type: \u{e4}", &image, (415, "unsupported_type"), "type"),
    ] {
        let answer = service.ask_with("POST", "/v1/detect", &[kind], body);
        assert_eq!(answer.error(), (wanted.0, wanted.1.to_owned()), "{kind}: {}", answer.body);
        let error = answer.json()["error"].clone();
        assert!(error["message"].as_str().unwrap().contains(part), "{error}");
        let hint = error["hint"].as_str().unwrap();
        assert!(wanted.0 == 422 || (hint.contains("--data-binary") && hint.contains("curl -F")), "{error}");
    }
    assert_eq!(service.metric("docent_queue_length"), 0.0);
}

#[test]
fn each_way_has_its_limits() {
    use base64::prelude::{BASE64_STANDARD, Engine};
    let limits = Limits { bytes: 100_000, ..Limits::default() };
    let service = Service::start(limits, squares());
    // A PNG may have anything behind its end.
    let mut image = picture(40, 20);
    image.resize(100_000, 0);
    let ask = |kind: &str, body: &[u8]| service.ask_with("POST", "/v1/detect", &[kind], body);
    let (form_type, largest) = form(&image);
    let json_type = "Content-Type: application/json";
    let json = |image: &[u8]| format!("{{\"image\":\"{}\"}}", BASE64_STANDARD.encode(image)).into_bytes();
    assert_eq!(ask("Accept: */*", &image).status, 200);
    assert_eq!(ask(&form_type, &largest).status, 200, "the lines around the image are not the image's");
    assert_eq!(ask(json_type, &json(&image)).status, 200, "base64 is longer than what it stands for");
    image.push(0);
    let too_large = |answer: Answer, part: &str| {
        assert_eq!(answer.error(), (413, "body_too_large".to_owned()), "{}", answer.body);
        assert!(answer.body.contains(part), "{}", answer.body);
    };
    too_large(ask("Accept: */*", &image), "the body has more than 100000");
    too_large(ask(&form_type, &form(&image).1), "the image has more than 100000");
    too_large(ask(json_type, &json(&image)), "the image has more than 100000");
    image.resize(200_000, 0);
    too_large(ask(&form_type, &form(&image).1), "the body has more than 165536");
    too_large(ask(json_type, &json(&image)), "the body has more than 154096");
    // A second image counts among what stands beside the first.
    let two = [&form(&picture(8, 8)).1[..], &form(&vec![0; 66_000]).1].concat();
    let two = String::from_utf8_lossy(&two).replacen("--line--\r\n", "", 1);
    too_large(ask(&form_type, two.as_bytes()), "more than 65536 bytes besides");
    let field = "--line\r\nContent-Disposition: form-data; name=\"n\"\r\n\r\n1\r\n";
    let many = ask(&form_type, format!("{}--line--\r\n", field.repeat(33)).as_bytes());
    assert_eq!(many.error(), (400, "bad_form".to_owned()), "{}", many.body);
}

#[test]
fn pages_of_the_named_origin_may_ask_and_no_others() {
    const ALLOWED: &str = "access-control-allow-origin: http://example.org";
    let preflight = |service: &Service, origin: &str| {
        let headers = [&format!("Origin: {origin}"), "Access-Control-Request-Method: POST"];
        service.ask_with("OPTIONS", "/v1/detect", &headers, b"").head
    };
    let service = Service::start_for(true, Limits::default(), squares());
    let head = preflight(&service, "http://example.org");
    assert!(head.starts_with("http/1.1 200") && head.contains(ALLOWED), "{head}");
    for line in ["access-control-allow-methods: ", "access-control-allow-headers: content-type"] {
        assert!(head.lines().any(|l| l.starts_with(line) && (line.ends_with("type") || l.contains("post"))), "{head}");
    }
    assert!(!preflight(&service, "http://other.example").contains("allow-origin"));
    // Answers can be read, errors too.
    let origin = ["Origin: http://example.org"];
    for (body, status) in [(&picture(8, 8)[..], 200), (b"no picture", 422)] {
        let answer = service.ask_with("POST", "/v1/detect", &origin, body);
        assert!(answer.status == status && answer.head.contains(ALLOWED), "{}", answer.head);
    }
    let other = service.ask_with("POST", "/v1/detect", &["Origin: http://other.example"], &picture(8, 8));
    assert!(other.status == 200 && !other.head.contains("allow-origin"), "{}", other.head);

    let closed = Service::start(Limits::default(), squares());
    let head = preflight(&closed, "http://example.org");
    assert!(head.starts_with("http/1.1 405") && !head.contains("allow-origin"), "{head}");
    let answer = closed.ask_with("POST", "/v1/detect", &origin, &picture(8, 8));
    assert!(answer.status == 200 && !answer.head.contains("allow-origin"), "{}", answer.head);
}

/// A model that waits until the test lets it go on.
fn held(gate: &Arc<Mutex<()>>, seen: &Arc<AtomicUsize>) -> Model {
    let (gate, seen) = (Arc::clone(gate), Arc::clone(seen));
    Box::new(move |_| {
        seen.fetch_add(1, Ordering::SeqCst);
        drop(gate.lock().unwrap());
        Ok(vec![])
    })
}

fn until(what: impl Fn() -> bool) {
    let start = Instant::now();
    while !what() {
        assert!(start.elapsed() < Duration::from_secs(10), "waited in vain");
        std::thread::sleep(Duration::from_millis(5));
    }
}

#[test]
fn a_full_queue_says_when_to_come_again() {
    let (gate, seen) = (Arc::new(Mutex::new(())), Arc::new(AtomicUsize::new(0)));
    let limits = Limits { queue: 1, ..Limits::default() };
    let mut service = Service::start(limits, held(&gate, &seen));
    let whole = picture(8, 8);
    let hold = gate.lock().unwrap();
    let answers = std::thread::scope(|scope| {
        let ask = || scope.spawn(|| service.detect("", &whole));
        let first = ask();
        until(|| seen.load(Ordering::SeqCst) == 1);
        let second = ask();
        until(|| service.metric("docent_queue_length") == 1.0);
        let refused = service.detect("", &whole);
        assert_eq!(refused.error(), (503, "queue_full".to_owned()));
        let after = refused.head.lines().find_map(|l| l.strip_prefix("retry-after: ")).unwrap();
        assert!((1..=60).contains(&after.parse::<u64>().unwrap()));
        // The rest goes on as usual.
        assert_eq!(service.ask("GET", "/healthz", b"").status, 200);
        drop(hold);
        [first, second].map(|thread| thread.join().unwrap().status)
    });
    assert_eq!((answers, seen.load(Ordering::SeqCst)), ([200, 200], 2));
    assert_eq!(service.metric("docent_queue_length"), 0.0);
    service.stop();
}

#[test]
fn time_ends_and_a_late_job_is_not_begun() {
    let (gate, seen) = (Arc::new(Mutex::new(())), Arc::new(AtomicUsize::new(0)));
    let limits = Limits { time: Duration::from_millis(300), queue: 4, ..Limits::default() };
    let service = Service::start(limits, held(&gate, &seen));
    let whole = picture(8, 8);
    let hold = gate.lock().unwrap();
    std::thread::scope(|scope| {
        let ask = || scope.spawn(|| service.detect("", &whole).error());
        let first = ask();
        until(|| seen.load(Ordering::SeqCst) == 1);
        let second = ask();
        for thread in [first, second] {
            assert_eq!(thread.join().unwrap(), (504, "timed_out".to_owned()));
        }
    });
    // A body that never comes.
    let mut stream = TcpStream::connect(service.address).unwrap();
    stream
        .write_all(b"POST /v1/detect HTTP/1.1\r\nHost: x\r\nConnection: close\r\nContent-Length: 500\r\n\r\nxy")
        .unwrap();
    assert_eq!(Answer::read(&mut stream).error(), (408, "slow_body".to_owned()));
    drop(hold);
    until(|| service.metric("docent_queue_length") == 0.0 && service.detect("", &whole).status == 200);
    assert_eq!(seen.load(Ordering::SeqCst), 2, "the job that was given up was passed over");
}

#[test]
fn a_fault_of_the_model_costs_one_answer() {
    let mut calls = 0;
    let model: Model = Box::new(move |_| {
        calls += 1;
        match calls {
            1 => panic!("a fault, for the test"),
            2 => Err("no".to_owned()),
            _ => Ok(vec![]),
        }
    });
    let service = Service::start(Limits::default(), model);
    let whole = picture(8, 8);
    for _ in 0..2 {
        assert_eq!(service.detect("", &whole).error(), (500, "detector_failed".to_owned()));
    }
    assert_eq!(service.detect("", &whole).status, 200);
    assert_eq!(service.ask("GET", "/healthz", b"").json()["status"], "ok");
}

#[test]
fn page_health_and_metrics() {
    let service = Service::start(Limits::default(), squares());
    let page = service.ask("GET", "/", b"");
    assert!(page.status == 200 && page.body.contains("<title>docent</title>") && page.body.contains("v1/detect"));
    assert!(page.head.contains("content-security-policy: default-src 'none'"), "{}", page.head);
    // Nothing in it is loaded from elsewhere.
    assert!(!page.body.contains("http://") && !page.body.contains("https://") && !page.body.contains("src="));
    let health = service.ask("GET", "/healthz", b"").json();
    assert_eq!((health["status"].as_str(), health["model"]["classes"][0].as_str()), (Some("ok"), Some("square")));
    assert_eq!(health["limits"]["queue"], 8);
    for _ in 0..3 {
        service.detect("", &picture(8, 8));
    }
    service.detect("", b"");
    assert_eq!(service.metric("docent_requests_total{route=\"/v1/detect\",status=\"200\"}"), 3.0);
    assert_eq!(service.metric("docent_requests_total{route=\"/v1/detect\",status=\"400\"}"), 1.0);
    assert_eq!(service.metric("docent_detections_total"), 3.0);
    assert_eq!(service.metric("docent_detect_seconds_count"), 3.0);
    assert_eq!(service.metric("docent_detect_seconds_bucket{le=\"+Inf\"}"), 3.0);
    assert_eq!(service.metric("docent_request_seconds_count{route=\"/v1/detect\"}"), 4.0);
    assert_eq!(service.metric("docent_queue_limit"), 8.0);
}

#[test]
fn stopping_answers_what_is_being_asked() {
    let (gate, seen) = (Arc::new(Mutex::new(())), Arc::new(AtomicUsize::new(0)));
    let mut service = Service::start(Limits::default(), held(&gate, &seen));
    let (whole, address) = (picture(8, 8), service.address);
    let hold = gate.lock().unwrap();
    let asking = {
        let head = format!("POST /v1/detect HTTP/1.1\r\nHost: x\r\nContent-Length: {}\r\n\r\n", whole.len());
        let mut stream = TcpStream::connect(address).unwrap();
        stream.write_all(head.as_bytes()).unwrap();
        stream.write_all(&whole).unwrap();
        std::thread::spawn(move || Answer::read(&mut stream).status)
    };
    until(|| seen.load(Ordering::SeqCst) == 1);
    // An idle connection does not keep it.
    let _idle = TcpStream::connect(address).unwrap();
    service.stop.take().unwrap().send(()).unwrap();
    std::thread::sleep(Duration::from_millis(100));
    drop(hold);
    assert_eq!(asking.join().unwrap(), 200);
    service.thread.take().unwrap().join().unwrap();
    assert!(TcpStream::connect(address).is_err());
}
