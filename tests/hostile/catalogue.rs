//! The catalogue lists every test, and no test that does not exist.

use std::fs;
use std::path::Path;

#[test]
fn the_catalogue_names_the_tests_that_there_are() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/hostile");
    let catalogue = fs::read_to_string(folder.join("README.md")).expect("the catalogue is there");
    let mut missing = Vec::new();
    let mut tests = Vec::new();
    for entry in fs::read_dir(&folder).expect("the folder is there") {
        let path = entry.expect("the folder is readable").path();
        let Some(module) = path.file_stem().and_then(|stem| stem.to_str()) else { continue };
        let text = fs::read_to_string(&path).expect("a test is a text");
        let functions = text.split("#[test]\nfn ").skip(1).filter_map(|rest| rest.split('(').next());
        tests.extend(functions.map(|name| format!("`{module}::{name}`")));
    }
    missing.extend(tests.iter().filter(|test| !catalogue.contains(*test) && !test.starts_with("`catalogue::")));
    assert!(missing.is_empty(), "not in the catalogue: {missing:#?}");
    let named =
        catalogue.split('`').filter(|name| name.contains("::") && !name.contains(' ')).map(|name| format!("`{name}`"));
    let modules = ["`route::", "`telemetry::", "`file::", "`wire::"];
    let unknown: Vec<_> =
        named.filter(|name| !tests.contains(name) && !modules.iter().any(|module| name.starts_with(module))).collect();
    assert!(unknown.is_empty(), "in the catalogue and not here: {unknown:#?}");
}
