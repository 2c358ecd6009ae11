//! The demo tells its story to the end.

mod support;

use support::gateway::command;

#[test]
fn the_demo_ends_well_and_shows_each_step() {
    let output = command().arg("demo").output().expect("the binary is built");
    let story = String::from_utf8_lossy(&output.stdout);
    let complaint = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{story}\n{complaint}");
    for part in ["TLS alert unrecognized_name", "passed: status 200", "refused: status 404", "refused: status 502"] {
        assert!(story.contains(part), "no {part:?} in:\n{story}");
    }
    assert!(story.contains("outbound|443||www.googleapis.com"), "no line of the access log in:\n{story}");
    assert!(story.trim_end().ends_with("Every step behaved."), "{story}");
}
