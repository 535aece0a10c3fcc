//! `docent serve` as a person starts it: a real checkpoint, a loopback port, signals.
#![allow(clippy::unwrap_used, clippy::panic)]
#![cfg(unix)]

use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::path::Path;
use std::process::{Child, Command, Stdio};

use docent_coco::{Category, Resize, ResizeRule, Rgb8};
use docent_detect::backbone::ResNetConfig;
use docent_detect::layers::NormKind;
use docent_detect::{AnchorConfig, FasterRcnnConfig, Registry, RoiConfig, RpnConfig};
use docent_model::{CheckpointMeta, save_checkpoint};
use docent_study::build::build;
use docent_study::recipe::{InitRecipe, ModelRecipe};
use serde_json::Value;

/// A detector of two classes with random weights: unsure of everything, so that it finds something everywhere.
fn checkpoint(path: &Path) {
    let backbone = ResNetConfig::default().depth(18).width_multiplier(0.125).norm(NormKind::BatchNorm);
    let model = FasterRcnnConfig::default()
        .classes(0)
        .fpn_channels(8)
        .backbone(backbone)
        .anchors(AnchorConfig::default().sizes(vec![8.0, 16.0, 32.0, 64.0, 128.0]))
        .rpn(RpnConfig::default().post_nms_top_n_test(20))
        .roi(RoiConfig::default().representation_size(8).detections_per_image(5));
    let built =
        build(&ModelRecipe { model: model.into(), init: InitRecipe::default() }, 3, 0, &Registry::builtin()).unwrap();
    let categories = [(2, "stripe"), (7, "dot")].map(|(id, name)| Category { id, name: name.into() });
    let resize = Resize::default().shortest(48).longest(64).rule(ResizeRule::Antialias);
    let meta = CheckpointMeta::new(&built.model.config(), &categories, &resize, "tiny", 0).unwrap();
    save_checkpoint(path, &built.store.snapshot().unwrap(), &meta.to_map().unwrap()).unwrap();
}

/// The program, ended with the test.
struct Running(Child);

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Starts the service and reads its address.
fn start(dir: &Path, more: &[&str]) -> (Running, String) {
    let child = Command::new(env!("CARGO_BIN_EXE_docent"))
        .args(["serve", "--checkpoint", "tiny.safetensors", "--listen", "127.0.0.1:0"])
        .args(more)
        .current_dir(dir)
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn();
    let mut running = Running(child.unwrap());
    let mut line = String::new();
    BufReader::new(running.0.stdout.as_mut().unwrap()).read_line(&mut line).unwrap();
    let address = line.split("http://").nth(1).and_then(|rest| rest.split('/').next());
    let address = address.unwrap_or_else(|| panic!("no address in {line:?}")).to_owned();
    (running, address)
}

/// Status and body of an answer.
fn ask(address: &str, method: &str, path: &str, body: &[u8]) -> (u16, String) {
    let mut stream = TcpStream::connect(address).unwrap();
    let length = body.len();
    write!(stream, "{method} {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\nContent-Length: {length}\r\n\r\n")
        .unwrap();
    stream.write_all(body).unwrap();
    let mut text = String::new();
    stream.read_to_string(&mut text).unwrap();
    let (head, body) = text.split_once("\r\n\r\n").unwrap();
    (head.split(' ').nth(1).unwrap().parse().unwrap(), body.to_owned())
}

#[test]
fn a_detector_is_served_and_stops_when_asked() {
    let temporary = tempfile::tempdir().unwrap();
    let dir = temporary.path();
    checkpoint(&dir.join("tiny.safetensors"));
    let (mut running, address) = start(dir, &["--threshold", "0", "--max-pixels", "10000"]);
    let png = |width, height| {
        let path = dir.join("x.png");
        Rgb8::filled(width, height, [60, 90, 200]).save_png(&path).unwrap();
        std::fs::read(path).unwrap()
    };
    let (status, body) = ask(&address, "POST", "/v1/detect", &png(80, 60));
    let json: Value = serde_json::from_str(&body).unwrap();
    assert_eq!((status, json["image"]["width"].as_u64()), (200, Some(80)), "{body}");
    let found = json["detections"].as_array().unwrap();
    assert!(!found.is_empty(), "an untrained head finds something everywhere");
    for d in found {
        assert!(["stripe", "dot"].contains(&d["label"].as_str().unwrap()), "{d}");
        let bbox: Vec<f64> = d["bbox"].as_array().unwrap().iter().map(|v| v.as_f64().unwrap()).collect();
        assert!(bbox[0] >= 0.0 && bbox[1] >= 0.0 && bbox[0] + bbox[2] <= 80.01 && bbox[1] + bbox[3] <= 60.01, "{d}");
    }
    // The service finds what `docent predict` finds.
    let output = Command::new(env!("CARGO_BIN_EXE_docent"))
        .args(["predict", "--checkpoint", "tiny.safetensors", "--threshold", "0", "--out", "found", "x.png"])
        .current_dir(dir)
        .output()
        .unwrap();
    assert!(output.status.success());
    let files: Value = serde_json::from_slice(&std::fs::read(dir.join("found/detections.json")).unwrap()).unwrap();
    let scores =
        |list: &Value| list.as_array().unwrap().iter().map(|d| d["score"].as_f64().unwrap()).collect::<Vec<_>>();
    let (one, other) = (scores(&files), scores(&json["detections"]));
    assert!(one.len() == other.len() && one.iter().zip(&other).all(|(a, b)| (a - b).abs() < 1e-6), "{one:?} {other:?}");

    assert_eq!(ask(&address, "POST", "/v1/detect", &png(200, 60)).0, 413);
    assert_eq!(ask(&address, "POST", "/v1/detect", b"no picture").0, 422);
    let (status, health) = ask(&address, "GET", "/healthz", b"");
    let health: Value = serde_json::from_str(&health).unwrap();
    assert_eq!(
        (status, health["model"]["recipe"].as_str(), health["limits"]["pixels"].as_u64()),
        (200, Some("tiny"), Some(10_000))
    );
    assert!(ask(&address, "GET", "/metrics", b"").1.contains("docent_detect_seconds_count 1"));
    assert!(ask(&address, "GET", "/", b"").1.contains("<title>docent</title>"));

    let killed = Command::new("sh").arg("-c").arg(format!("kill -TERM {}", running.0.id())).status().unwrap();
    assert!(killed.success());
    assert_eq!(running.0.wait().unwrap().code(), Some(0));
    let (mut out, mut err) = (String::new(), String::new());
    running.0.stdout.take().unwrap().read_to_string(&mut out).unwrap();
    running.0.stderr.take().unwrap().read_to_string(&mut err).unwrap();
    assert!(out.contains("stopped") && err.contains("stopping after what is being asked"), "{out}{err}");
}

/// A client that goes away with an answer unread resets its connection, and what is written to it then is a SIGPIPE.
#[test]
fn clients_that_break_off_cost_nothing_but_their_answers() {
    let temporary = tempfile::tempdir().unwrap();
    let dir = temporary.path();
    checkpoint(&dir.join("tiny.safetensors"));
    let (mut running, address) = start(dir, &[]);
    for _ in 0..5 {
        let mut stream = TcpStream::connect(&address).unwrap();
        write!(stream, "GET /healthz HTTP/1.1\r\nHost: x\r\n\r\n").unwrap();
        write!(stream, "POST /v1/detect HTTP/1.1\r\nHost: x\r\nContent-Length: 9999\r\n\r\nthe rest never comes")
            .unwrap();
        // The first answer is there, and nobody reads it.
        stream.peek(&mut [0]).unwrap();
        drop(stream);
        assert_eq!(ask(&address, "GET", "/healthz", b"").0, 200);
    }
    assert!(running.0.try_wait().unwrap().is_none(), "the service has ended");
}

#[test]
fn what_cannot_be_served_is_said_plainly() {
    let temporary = tempfile::tempdir().unwrap();
    let dir = temporary.path();
    let fails = |args: &[&str], code: i32, part: &str| {
        let output =
            Command::new(env!("CARGO_BIN_EXE_docent")).arg("serve").args(args).current_dir(dir).output().unwrap();
        let err = String::from_utf8(output.stderr).unwrap();
        assert!(
            output.status.code() == Some(code) && err.contains(part) && !err.contains("panicked"),
            "{args:?}: {err}"
        );
    };
    fails(&["--checkpoint", "none.safetensors"], 1, "none.safetensors");
    fails(&[], 2, "--checkpoint");
    checkpoint(&dir.join("tiny.safetensors"));
    let with = |more: [&'static str; 2]| ["--checkpoint", "tiny.safetensors", more[0], more[1]];
    fails(&with(["--listen", "here"]), 2, "--listen");
    fails(&with(["--threshold", "3"]), 1, "0..=1");
    fails(&with(["--time", "soon"]), 2, "--time");
    fails(&with(["--max-pixels", "0"]), 1, "--max-pixels");
    fails(&with(["--cors", "example.org"]), 2, "such as http://example.org");
    fails(&with(["--cors", "http://example.org/page"]), 2, "write http://example.org");
    // A port in use.
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap().to_string();
    let args = ["--checkpoint", "tiny.safetensors", "--listen", address.as_str()];
    fails(&args, 1, "choose another --listen");
}
