//! Files and folders → YAML documents that know where they stand.
//!
//! What a hostile or broken file may do is bounded here: its size, its nesting, its aliases (serde_yaml's own
//! repetition limit), duplicate keys (serde_yaml refuses them) and bytes that are not UTF-8.

use std::io::Read;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, OnceLock};

use serde_yaml::Value;

use super::finding::{Report, Severity, code};
use super::position::Positions;
use super::yaml::{self, Node};
use crate::route::table::Place;

/// Largest file that is read: ten times a folder of 100,000 service entries.
pub const FILE_BYTES_MAX: u64 = 256 * 1024 * 1024;

const _: () = assert!(FILE_BYTES_MAX < u32::MAX as u64);

/// Largest single document. The API server of Kubernetes takes 3 MiB in one request; `kind: List` holds many objects.
pub const DOCUMENT_BYTES_MAX: usize = 64 * 1024 * 1024;

/// Most brackets that may be open at once in a document. The YAML scanner takes quadratic time over nested flow
/// collections, so absurd nesting is refused before it sees any.
pub const NESTING_MAX: usize = 200;

/// How often files are read that are swapped meanwhile, until they have been read in one piece.
const READ_ATTEMPTS_MAX: usize = 16;

/// A file that was read.
pub struct SourceFile {
    path: PathBuf,
    /// Its path, as findings show it.
    name: Arc<String>,
    text: String,
}

impl SourceFile {
    fn new(path: PathBuf, text: String) -> Self {
        Self { name: Arc::new(path.display().to_string()), path, text }
    }
}

/// Without the text, which may hold Secrets.
impl std::fmt::Debug for SourceFile {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.debug_struct("SourceFile").field("path", &self.path).finish_non_exhaustive()
    }
}

/// The text of a document: what stands between two `---`.
#[derive(Clone, Debug)]
pub struct Excerpt {
    file: Arc<SourceFile>,
    /// [`FILE_BYTES_MAX`] is far below what fits.
    range: std::ops::Range<u32>,
    /// The line of the file on which the text begins.
    first_line: u32,
}

/// One document of a file.
#[derive(Debug)]
pub struct Document {
    /// Its text.
    pub excerpt: Excerpt,
    positions: OnceLock<Box<Positions>>,
}

impl Document {
    /// `file.yaml:12`: the line of a field, or of its nearest parent in the file.
    #[must_use]
    pub fn source(&self, field: &str) -> Place {
        let positions = self.positions.get_or_init(|| Box::new(Positions::read(self.excerpt.text())));
        match positions.line(field) {
            Some(line) => self.excerpt.at_line(line),
            None => self.excerpt.start(),
        }
    }
}

impl Excerpt {
    /// The file that it stands in.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.file.path
    }

    /// What was read.
    #[must_use]
    pub fn text(&self) -> &str {
        &self.file.text[self.range.start as usize..self.range.end as usize]
    }

    /// `file.yaml:12`: the first line that holds more than a comment.
    #[must_use]
    pub fn start(&self) -> Place {
        let blank = self.text().lines().take_while(|line| is_blank(line)).count();
        self.at_line(u32::try_from(blank + 1).unwrap_or(u32::MAX))
    }

    /// `file.yaml:12` for a line counted from 1 within this document.
    fn at_line(&self, line: u32) -> Place {
        Place::new(Arc::clone(&self.file.name), self.first_line.saturating_add(line).saturating_sub(1))
    }

    /// Reads the YAML; `None` for a document that holds only comments.
    ///
    /// # Errors
    /// Where and what is wrong.
    pub fn parse(&self) -> Result<Option<Node<'_>>, (Place, String)> {
        let text = self.text();
        // A carriage return ends a line, and with it a comment (YAML 1.2 section 5.4).
        if text.split(['\n', '\r']).all(is_blank) {
            return Ok(None);
        }
        self.judge_size(text)?;
        let node = yaml::parse(text).map_err(|error| {
            let line = error.location().map_or(1, |location| location.line());
            (self.at_line(u32::try_from(line).unwrap_or(u32::MAX)), error.to_string())
        })?;
        Ok((!node.is_null()).then_some(node))
    }

    fn judge_size(&self, text: &str) -> Result<(), (Place, String)> {
        if text.len() > DOCUMENT_BYTES_MAX {
            return Err((self.start(), format!("the document is larger than {DOCUMENT_BYTES_MAX} bytes")));
        }
        match nesting(text) {
            Some(line) => Err((self.at_line(line), format!("more than {NESTING_MAX} brackets are open at once"))),
            None => Ok(()),
        }
    }
}

/// The line on which more than [`NESTING_MAX`] brackets are open. Brackets in text count too, which no real object
/// comes near.
fn nesting(text: &str) -> Option<u32> {
    let mut open: usize = 0;
    let mut line = 1;
    for byte in text.bytes() {
        match byte {
            b'\n' => line += 1,
            b'[' | b'{' => open += 1,
            b']' | b'}' => open = open.saturating_sub(1),
            _ => {}
        }
        if open > NESTING_MAX {
            return Some(line);
        }
    }
    None
}

/// Nothing but white space, a comment, a directive or a document marker.
fn is_blank(line: &str) -> bool {
    let line = line.trim_start_matches('\u{feff}').trim();
    line.is_empty() || line.starts_with('#') || line.starts_with('%') || line == "---" || line == "..."
}

/// Every document of the files and folders, in the order that stands for age where no timestamp does: paths as
/// given, the files of a folder by name, documents by position. None is decoded yet: decoded values take ten times the
/// memory of their text.
pub fn load(paths: &[PathBuf], report: &mut Report) -> Vec<Document> {
    for _ in 0..READ_ATTEMPTS_MAX {
        let before = versions(paths);
        let mut attempt = Report::default();
        let documents = read_all(paths, &mut attempt);
        if versions(paths) == before {
            attempt.into_findings().into_iter().for_each(|finding| report.add(finding));
            return documents;
        }
    }
    let paths: Vec<_> = paths.iter().map(|path| path.display().to_string()).collect();
    report.file(Severity::Error, code::UNREADABLE, paths.join(", "), "the files change faster than they can be read");
    Vec::new()
}

/// The version that each folder shows: Kubernetes swaps all files of a ConfigMap at once, by this link. Files read
/// before a swap and files read behind it were never meant to stand together.
///
/// The link is told from another that leads to the same place: what was swapped twice was swapped.
fn versions(paths: &[PathBuf]) -> Vec<Option<(u64, i64, i64)>> {
    let folder = |path: &'_ PathBuf| if path.is_dir() { path.clone() } else { path.with_file_name("") };
    let link = |path: &PathBuf| std::fs::symlink_metadata(folder(path).join("..data")).ok();
    paths.iter().map(|path| link(path).map(|link| (link.ino(), link.ctime(), link.ctime_nsec()))).collect()
}

fn read_all(paths: &[PathBuf], report: &mut Report) -> Vec<Document> {
    let files: Vec<PathBuf> = paths.iter().flat_map(|path| files(path, report)).collect();
    let mut documents = Vec::new();
    for path in files {
        match read_file(&path) {
            Ok(file) => documents.extend(split_file(file)),
            Err(error) => report.file(Severity::Error, code::UNREADABLE, path.display().to_string(), error),
        }
    }
    documents
}

/// Decodes documents and hands each on before the next is decoded. Faults are reported; empty documents are left out.
pub fn decode(
    documents: impl IntoIterator<Item = Document>,
    report: &mut Report,
    mut each: impl FnMut(&Arc<Document>, &Node<'_>, &mut Report),
) {
    for document in documents {
        let document = Arc::new(document);
        match document.excerpt.parse() {
            Ok(Some(node)) => each(&document, &node, report),
            Ok(None) => {}
            Err((source, message)) => report.file(Severity::Error, code::SYNTAX, source.to_string(), message),
        }
    }
}

/// The YAML of a single file that holds a single document (the bootstrap file).
///
/// # Errors
/// What is wrong has been reported.
pub(super) fn load_single(path: &Path, report: &mut Report) -> Option<(Arc<Document>, Value)> {
    let mut documents = Vec::new();
    let loaded = load(&[path.to_path_buf()], report);
    decode(loaded, report, |document, node, _| documents.push((Arc::clone(document), node.to_value())));
    let document = documents.pop()?;
    if let Some((first, _)) = documents.first() {
        report.file(
            Severity::Error,
            code::SYNTAX,
            first.excerpt.start().to_string(),
            "more than one document in the bootstrap file",
        );
        return None;
    }
    Some(document)
}

/// A file itself, or the YAML files of a folder, sorted. Hidden entries are skipped: Kubernetes keeps the versions
/// of a ConfigMap volume in them and links the visible names to the current one.
fn files(path: &Path, report: &mut Report) -> Vec<PathBuf> {
    if !path.is_dir() {
        return vec![path.to_path_buf()];
    }
    let entries = std::fs::read_dir(path).and_then(|entries| entries.collect::<Result<Vec<_>, _>>());
    let entries = match entries {
        Ok(entries) => entries,
        Err(error) => {
            report.file(Severity::Error, code::UNREADABLE, path.display().to_string(), error.to_string());
            return Vec::new();
        }
    };
    let mut files: Vec<PathBuf> =
        entries.iter().map(std::fs::DirEntry::path).filter(|path| is_resource(path)).collect();
    files.sort_unstable();
    // A FIFO would be waited for. What is named outright may be one: somebody means to write to it.
    files.retain(|path| {
        let is_special = path.metadata().is_ok_and(|metadata| !metadata.is_file());
        if is_special {
            report.file(Severity::Error, code::UNREADABLE, path.display().to_string(), "not a regular file");
        }
        !is_special
    });
    files
}

fn is_resource(path: &Path) -> bool {
    let hidden = path.file_name().is_some_and(|name| name.as_encoded_bytes().starts_with(b"."));
    let yaml = path.extension().is_some_and(|extension| extension == "yaml" || extension == "yml");
    yaml && !hidden && !path.is_dir()
}

fn read_file(path: &Path) -> Result<SourceFile, String> {
    let file = std::fs::File::open(path).map_err(|error| error.to_string())?;
    let size = file.metadata().map_or(0, |metadata| metadata.len().min(FILE_BYTES_MAX));
    let mut bytes = Vec::with_capacity(usize::try_from(size).unwrap_or(0));
    file.take(FILE_BYTES_MAX + 1).read_to_end(&mut bytes).map_err(|error| error.to_string())?;
    if bytes.len() as u64 > FILE_BYTES_MAX {
        return Err(format!("the file is larger than {FILE_BYTES_MAX} bytes"));
    }
    let text = String::from_utf8(bytes).map_err(|error| format!("the file is not UTF-8: {}", error.utf8_error()))?;
    Ok(SourceFile::new(path.to_path_buf(), text))
}

fn split_file(file: SourceFile) -> impl Iterator<Item = Document> {
    let file = Arc::new(file);
    let parts = split(&file.text);
    parts.into_iter().map(move |(range, first_line)| Document {
        excerpt: Excerpt { file: Arc::clone(&file), range, first_line },
        positions: OnceLock::new(),
    })
}

/// Cuts a file before every line that begins with `---`. YAML allows such a line nowhere else, block scalars
/// included (YAML 1.2 section 9.1.2, `c-forbidden`), so a fault in one document leaves the others readable.
fn split(text: &str) -> Vec<(std::ops::Range<u32>, u32)> {
    let mut parts = Vec::new();
    let (mut start, mut start_line, mut offset) = (0, 1, 0_u32);
    for (line, number) in text.split_inclusive('\n').zip(1u32..) {
        let marker =
            line.strip_prefix("---").is_some_and(|rest| rest.is_empty() || rest.starts_with([' ', '\t', '\r', '\n']));
        if marker && offset > 0 {
            parts.push((start..offset, start_line));
            (start, start_line) = (offset, number);
        }
        // A file is shorter than FILE_BYTES_MAX.
        offset += u32::try_from(line.len()).unwrap_or(u32::MAX);
    }
    parts.push((start..offset, start_line));
    parts
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(text: &str) -> (Vec<(Arc<Document>, Value)>, Vec<super::super::finding::Finding>) {
        let mut report = Report::default();
        let mut documents = Vec::new();
        let file = SourceFile::new("f.yaml".into(), text.to_owned());
        let mut keep =
            |document: &Arc<Document>, node: &Node<'_>| documents.push((Arc::clone(document), node.to_value()));
        decode(split_file(file), &mut report, |document, node, _| keep(document, node));
        (documents, report.into_findings())
    }

    #[test]
    fn documents_are_cut_at_their_markers_and_know_their_lines() {
        let (documents, findings) = parse("# first\na: 1\n---\n\nb: |\n  text\n  ---\n--- # empty\n---\nc: 3\n");
        assert!(findings.is_empty(), "{findings:?}");
        let starts: Vec<_> = documents.iter().map(|(document, _)| document.excerpt.start().to_string()).collect();
        assert_eq!(starts, ["f.yaml:2", "f.yaml:5", "f.yaml:10"]);
        assert_eq!(documents[1].0.source("b").to_string(), "f.yaml:5");
    }

    #[test]
    fn a_fault_is_reported_with_its_line_and_spares_the_other_documents() {
        let (documents, findings) = parse("a: 1\n---\nb: 1\nb: 2\n---\nc: 3\n");
        assert_eq!(documents.len(), 2);
        assert_eq!(findings.len(), 1);
        assert_eq!(findings[0].code, code::SYNTAX);
        assert!(findings[0].message.contains("duplicate"), "{findings:?}");
        assert!(findings[0].source.starts_with("f.yaml:"), "{findings:?}");
    }

    #[test]
    fn absurd_nesting_is_refused_before_it_costs_time() {
        let (documents, findings) = parse(&format!("a: {}\n", "[".repeat(1_000_000)));
        assert!(documents.is_empty());
        assert!(findings[0].message.contains("brackets"), "{findings:?}");
        let (documents, findings) = parse(&format!("{}a\n", "- ".repeat(100_000)));
        assert!(documents.is_empty());
        assert!(findings[0].message.contains("recursion limit"), "{findings:?}");
    }

    #[test]
    fn alias_bombs_are_refused() {
        let mut text = String::from("a0: &a0 [x, x, x, x, x, x, x, x, x, x]\n");
        for level in 1..12 {
            let below = vec![format!("*a{}", level - 1); 10].join(", ");
            text.push_str(&format!("a{level}: &a{level} [{below}]\n"));
        }
        let (documents, findings) = parse(&text);
        assert!(documents.is_empty());
        assert!(findings[0].message.contains("repetition limit"), "{findings:?}");
    }

    #[test]
    fn merge_keys_are_applied() {
        let (documents, _) = parse("base: &b {mode: SIMPLE}\ntls:\n  <<: *b\n  sni: a\n");
        assert_eq!(documents[0].1["tls"]["mode"], Value::from("SIMPLE"));
    }
}
