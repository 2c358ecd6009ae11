//! `GET /`: the state at a glance, for people.

use std::fmt::Write;

use crate::config::finding::Finding;
use crate::control::shared::Shared;
use crate::control::version;

use super::json::time;
use super::objects::KINDS;

/// The page. Everything that comes from files is escaped; it needs no script and loads nothing.
pub(super) fn page(shared: &Shared) -> String {
    let status = shared.status.borrow();
    let mut page = String::from(
        "<!doctype html><html lang=\"en\"><meta charset=\"utf-8\"><title>portcullis</title>\
         <style>body{font:16px/1.5 sans-serif;margin:2rem;max-width:60rem}th{text-align:left;padding-right:2rem}</style>\
         <h1>portcullis</h1><table>",
    );
    let last = &status.last_reload;
    let outcome = if last.successful { "in force" } else { "refused; the running configuration stays" };
    row(&mut page, "State", status.phase.as_str());
    row(&mut page, "Version", &format!("{} (commit {})", version::VERSION, version::COMMIT));
    row(&mut page, "Up for", &format!("{} s", shared.uptime().as_secs()));
    let drivers: Vec<&str> = status.drivers.iter().map(|driver| driver.unwrap_or("starting")).collect();
    row(&mut page, "Workers", &format!("{} ({})", drivers.len(), drivers.join(", ")));
    row(&mut page, "Generation", &status.generation.to_string());
    row(&mut page, "Objects", &status.objects.len().to_string());
    row(&mut page, "Last load", &format!("{}: {outcome}", time(last.time).unwrap_or_default()));
    page.push_str("</table>");
    findings(&mut page, &last.findings);
    page.push_str("<h2>More</h2><ul>");
    let kinds = KINDS.iter().map(|(path, _)| *path);
    for path in ["ready", "server_info", "metrics", "config_dump", "denied"].into_iter().chain(kinds) {
        let _ = write!(page, "<li><a href=\"/{path}\">/{path}</a>");
    }
    page.push_str("</ul><p>POST /reload and POST /drain change something.</p></html>\n");
    page
}

fn row(page: &mut String, name: &str, value: &str) {
    let _ = write!(page, "<tr><th>{name}<td>{}", escape(value));
}

fn findings(page: &mut String, findings: &[Finding]) {
    if findings.is_empty() {
        return;
    }
    page.push_str("<h2>Findings</h2><ul>");
    for finding in findings {
        let _ = write!(page, "<li>{}", escape(&crate::control::line(finding)));
    }
    page.push_str("</ul>");
}

fn escape(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;").replace('"', "&quot;")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn texts_from_files_are_no_markup() {
        assert_eq!(escape("<b a=\"&\">"), "&lt;b a=&quot;&amp;&quot;&gt;");
    }
}
