//! Tests of the house rules, on small made-up crates.

use std::fs;
use std::path::Path;

use super::*;

fn check_crate(files: &[(&str, &str)]) -> Vec<String> {
    check_listed(files, &[])
}

/// Writes a crate's files into `crates/demo` and checks them; cycles of the crates `with_cycles` are passed over.
fn check_listed(files: &[(&str, &str)], with_cycles: &[&str]) -> Vec<String> {
    let root = tempfile::tempdir().unwrap();
    let package = root.path().join("crates/demo");
    fs::create_dir_all(&package).unwrap();
    fs::write(package.join("Cargo.toml"), "").unwrap();
    for (name, text) in files {
        let path = package.join(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, format!("//! Demo.\n{text}")).unwrap();
    }
    check(root.path(), with_cycles).unwrap()
}

fn cycles(files: &[(&str, &str)]) -> usize {
    let faults = check_crate(files);
    assert!(faults.iter().all(|fault| fault.starts_with("import cycle:")), "{faults:?}");
    faults.len()
}

#[test]
fn a_long_file_and_a_first_line_without_words_are_faults() {
    let name = Path::new("crates/demo/src/a.rs");
    assert_eq!(check_text(name, "//! A.\n"), Vec::<String>::new());
    assert_eq!(check_text(name, &format!("//! A.\n{}", "\n".repeat(499))), Vec::<String>::new());
    assert!(check_text(name, &format!("//! A.\n{}", "\n".repeat(500)))[0].contains("501 lines"));
    for text in ["", "//!\n//! A.\n", "//! \n", "// A.\n", "use a::B;\n"] {
        assert!(check_text(name, text)[0].contains(":1: the first line"), "{text:?}");
    }
    for name in ["crates/demo/tests/it.rs", "crates/demo/src/a/tests.rs"] {
        assert_eq!(check_text(Path::new(name), "// A test's words.\n"), Vec::<String>::new());
        assert_eq!(check_text(Path::new(name), "use a::B;\n").len(), 1);
    }
}

#[test]
fn a_cycle_is_told_with_its_import_lines() {
    let faults = check_crate(&[
        ("src/lib.rs", "mod a; mod b; mod c; mod d;"),
        ("src/a.rs", "use std::fmt;\nuse crate::b::{self, B};\npub struct A;"),
        ("src/b.rs", "pub struct B;\n\nfn f() { crate::c::g() }"),
        ("src/c.rs", "use super::a::A;\npub fn g() {}"),
        ("src/d.rs", "use crate::a::A;"),
    ]);
    let want = "import cycle:\n  crates/demo/src/a.rs:3 uses crate::b::B of crates/demo/src/b.rs\
                \n  crates/demo/src/b.rs:4 uses crate::c::g of crates/demo/src/c.rs\
                \n  crates/demo/src/c.rs:2 uses super::a::A of crates/demo/src/a.rs";
    assert_eq!(faults, [want]);
}

#[test]
fn cycles_of_a_listed_crate_are_passed_over_and_one_without_must_leave_the_list() {
    let lib = ("src/lib.rs", "mod a; mod b;");
    let a = ("src/a.rs", "use crate::b::f; pub fn g() {}");
    let cycle = [lib, a, ("src/b.rs", "use crate::a::g; pub fn f() {}")];
    let list = ["crates/demo/src/lib.rs"];
    assert_eq!(check_listed(&cycle, &list), Vec::<String>::new());
    assert_eq!(check_listed(&cycle, &["crates/other/src/lib.rs"]).len(), 1);
    let faults = check_listed(&[lib, a, ("src/b.rs", "pub fn f() {}")], &list);
    assert!(faults.len() == 1 && faults[0].contains("WITH_CYCLES"), "{faults:?}");
}

#[test]
fn each_set_of_files_is_told_once() {
    let a = ("src/a.rs", "use crate::b::f; pub fn g() {}");
    let b = ("src/b.rs", "use crate::a::g; use crate::c::h; pub fn f() {}");
    let c = ("src/c.rs", "use crate::b::f; pub fn h() {}");
    let d = ("src/d.rs", "use crate::e::f; pub fn g() {}");
    let e = ("src/e.rs", "use crate::d::g; pub fn f() {}");
    assert_eq!(cycles(&[("src/lib.rs", "mod a; mod b; mod c; mod d; mod e;"), a, b, c, d, e]), 2);
}

#[test]
fn reexports_lead_to_the_file_that_defines_the_item() {
    let b = ("src/b.rs", "pub struct B; fn f(_: crate::a::A) {}");
    for (root, import) in [
        ("mod a; mod b; pub use b::B;", "use crate::B;"),
        ("mod a; mod b; pub use b::B as C;", "use crate::C;"),
        ("mod a; mod b; pub use b::*;", "use crate::B;"),
        ("mod a; mod b; pub use crate::b::B;", "use super::*; fn f(_: B) {}"),
        ("mod a; mod b;", "use crate::b; fn f(_: b::B) {}"),
        ("mod a; mod b;", "use crate::b as c; fn f() { println!(\"{}\", c::B::NAME) }"),
        ("mod a; mod b;", "#[derive(Debug)] pub enum E { #[error(\"{0}\", crate::b::f())] V }"),
    ] {
        assert_eq!(cycles(&[("src/lib.rs", root), ("src/a.rs", &format!("{import} pub struct A;")), b]), 1, "{import}");
        assert_eq!(cycles(&[("src/lib.rs", root), ("src/a.rs", "pub struct A;"), b]), 0);
    }
}

#[test]
fn a_reexport_alone_is_no_use_but_its_name_in_code_is() {
    let a = ("src/a.rs", "use crate::Shared; pub struct A;");
    assert_eq!(cycles(&[("src/lib.rs", "mod a; pub use a::A; pub struct Shared;"), a]), 0);
    assert_eq!(cycles(&[("src/lib.rs", "mod a; pub use a::A; pub struct Shared(A);"), a]), 1);
    assert_eq!(cycles(&[("src/lib.rs", "mod a; use a::A; pub struct Shared;"), a]), 1);
}

#[test]
fn a_function_may_have_its_modules_name() {
    let root = ("src/lib.rs", "mod nms; mod b; pub use nms::nms;");
    let nms = ("src/nms.rs", "pub fn nms() {} fn f() { crate::b::g() }");
    assert_eq!(cycles(&[root, nms, ("src/b.rs", "use crate::nms; pub fn g() { nms() }")]), 1);
    assert_eq!(cycles(&[root, nms, ("src/b.rs", "use crate::nms::nms; pub fn g() { nms() }")]), 1);
    assert_eq!(cycles(&[root, nms, ("src/b.rs", "pub fn g() {}")]), 0);
}

#[test]
fn test_code_and_other_crates_do_not_count() {
    let root = ("src/lib.rs", "mod a; mod b;");
    let b = ("src/b.rs", "use crate::a::A; pub struct B;");
    for code in [
        "#[cfg(test)] mod tests { use crate::b::B; }",
        "#[cfg(test)] #[allow(unused)] pub use crate::b::{B};",
        "#[cfg(all(test, unix))] fn f() -> crate::b::B { todo!() }",
        "use ::b::B; fn f(_: other::b::B, _: ::b::B) {}",
        "/// [`crate::b::B`]\nfn f() { \"crate::b::B\"; }",
    ] {
        assert_eq!(cycles(&[root, ("src/a.rs", &format!("{code} pub struct A;")), b]), 0, "{code}");
        assert_eq!(cycles(&[root, ("src/a.rs", &format!("{code} pub struct A(crate::b::B);")), b]), 1, "{code}");
    }
    let not_test = "#[cfg(not(test))] use crate::b::B; pub struct A;";
    assert_eq!(cycles(&[root, ("src/a.rs", not_test), b]), 1);
}

#[test]
fn folders_inline_modules_and_paths_are_followed() {
    let a = ("src/a/mod.rs", "mod inner; pub use inner::f; pub mod inline { pub mod deep { use crate::b::B; } }");
    let inner = ("src/a/inner.rs", "pub fn f() {}");
    let deep = ("src/a/inline/deep.rs", "");
    let b = |import: &str| format!("use {import}; pub struct B;");
    let root = ("src/main.rs", "mod a; mod b;");
    assert_eq!(cycles(&[root, a, inner, deep, ("src/b.rs", &b("crate::a::f"))]), 0);
    assert_eq!(cycles(&[root, a, inner, deep, ("src/b.rs", &b("crate::a::inline::X"))]), 1);
    let test = ("tests/it/main.rs", "#[path = \"../common.rs\"] mod common; mod part; pub fn f() {}");
    let part = ("tests/it/part.rs", "use super::common::g;");
    assert_eq!(cycles(&[test, part, ("tests/common.rs", "pub fn g() {}")]), 0);
    assert_eq!(cycles(&[test, part, ("tests/common.rs", "use crate::part::h; pub fn g() {}")]), 1);
}

#[test]
fn files_beside_the_shortest_cycle_are_named() {
    let faults = check_crate(&[
        ("src/lib.rs", "mod a; mod b; mod c;"),
        ("src/a.rs", "use crate::b::f;"),
        ("src/b.rs", "use crate::a::g; use crate::c::h;"),
        ("src/c.rs", "use crate::b::f;"),
    ]);
    assert!(faults.len() == 1 && faults[0].ends_with("\n  crates/demo/src/c.rs is in cycles with these files, too"));
}
