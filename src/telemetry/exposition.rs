//! The Prometheus text format, version 0.0.4: what every scraper reads, with names exactly as the contract lists them.
//!
//! (prometheus-client writes OpenMetrics, where `istio_requests_total` is declared as `istio_requests`, and wants
//! every row owned and every label set a type.)

use std::fmt::Write;

use super::metrics::{DURATION_BUCKETS, Histogram};

/// The media type of the text.
pub const CONTENT_TYPE: &str = "text/plain; version=0.0.4; charset=utf-8";

/// Names and values of the labels of one sample.
pub(super) type Labels<'a> = [(&'static str, &'a str)];

/// What the TYPE line says.
#[derive(Clone, Copy, Debug)]
pub(super) enum Kind {
    Counter,
    Gauge,
    Histogram,
}

/// A text in the making. Writing to a `String` cannot fail, so results of `write!` are dropped throughout.
#[derive(Debug, Default)]
pub(super) struct Exposition {
    text: String,
}

impl Exposition {
    /// Begins a metric; its samples follow.
    pub(super) fn metric<'a>(&'a mut self, name: &'static str, kind: Kind, help: &str) -> Metric<'a> {
        let kind = match kind {
            Kind::Counter => "counter",
            Kind::Gauge => "gauge",
            Kind::Histogram => "histogram",
        };
        let _ = writeln!(self.text, "# HELP {name} {help}\n# TYPE {name} {kind}");
        Metric { name, text: &mut self.text }
    }

    pub(super) fn into_text(self) -> String {
        self.text
    }
}

/// A metric whose samples are being written.
#[derive(Debug)]
pub(super) struct Metric<'a> {
    name: &'static str,
    text: &'a mut String,
}

impl Metric<'_> {
    /// One sample. Values are counts and sums; Prometheus reads all of them as 64-bit floating point.
    pub(super) fn sample(&mut self, labels: &Labels<'_>, value: f64) {
        self.line("", labels, None, value);
    }

    /// The samples of a histogram: cumulated buckets, sum and count.
    pub(super) fn histogram(&mut self, labels: &Labels<'_>, histogram: &Histogram) {
        let mut cumulated = 0;
        for (index, count) in histogram.buckets.iter().enumerate() {
            cumulated += count;
            let bound = DURATION_BUCKETS.get(index).map_or("+Inf".to_owned(), f64::to_string);
            self.line("_bucket", labels, Some(&bound), cumulated as f64);
        }
        self.line("_sum", labels, None, histogram.sum);
        self.line("_count", labels, None, histogram.count as f64);
    }

    fn line(&mut self, suffix: &str, labels: &Labels<'_>, bound: Option<&str>, value: f64) {
        self.text.push_str(self.name);
        self.text.push_str(suffix);
        let bound = bound.map(|bound| ("le", bound));
        let mut separator = '{';
        for (name, value) in labels.iter().copied().chain(bound) {
            self.text.push(separator);
            let _ = write!(self.text, "{name}=\"");
            escape(value, self.text);
            self.text.push('"');
            separator = ',';
        }
        if separator == ',' {
            self.text.push('}');
        }
        let _ = writeln!(self.text, " {value}");
    }
}

/// Label values escape the backslash, the quote and the line feed, and nothing else.
fn escape(value: &str, text: &mut String) {
    for character in value.chars() {
        match character {
            '\\' => text.push_str("\\\\"),
            '"' => text.push_str("\\\""),
            '\n' => text.push_str("\\n"),
            other => text.push(other),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_metric_has_help_type_and_samples_with_escaped_labels() {
        let mut exposition = Exposition::default();
        let mut metric = exposition.metric("x_total", Kind::Counter, "Things.");
        metric.sample(&[], 1.0);
        metric.sample(&[("a", "q\"b\\\n"), ("b", "é")], 12_345_678_901.0);
        assert_eq!(
            exposition.into_text(),
            "# HELP x_total Things.\n# TYPE x_total counter\nx_total 1\nx_total{a=\"q\\\"b\\\\\\n\",b=\"é\"} 12345678901\n"
        );
    }

    #[test]
    fn buckets_are_cumulated_and_the_last_holds_everything() {
        let mut histogram = Histogram { count: 3, sum: 7.5, ..Histogram::default() };
        histogram.buckets[0] = 1;
        histogram.buckets[2] = 1;
        histogram.buckets[DURATION_BUCKETS.len()] = 1;
        let mut exposition = Exposition::default();
        exposition.metric("h", Kind::Histogram, "Times.").histogram(&[("k", "v")], &histogram);
        let text = exposition.into_text();
        let lines: Vec<&str> = text.lines().collect();
        assert_eq!(
            lines[1..6],
            [
                "# TYPE h histogram",
                "h_bucket{k=\"v\",le=\"0.5\"} 1",
                "h_bucket{k=\"v\",le=\"1\"} 1",
                "h_bucket{k=\"v\",le=\"5\"} 2",
                "h_bucket{k=\"v\",le=\"10\"} 2",
            ]
        );
        assert_eq!(
            lines[lines.len() - 3..],
            ["h_bucket{k=\"v\",le=\"+Inf\"} 3", "h_sum{k=\"v\"} 7.5", "h_count{k=\"v\"} 3"]
        );
    }
}
