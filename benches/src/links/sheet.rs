//! A table of texts for people, and every single run for machines.

use serde_json::{Value, json};

/// The result of one case.
#[derive(Debug, Clone)]
pub(crate) struct Sheet {
    pub(crate) case: &'static str,
    pub(crate) title: String,
    pub(crate) head: Vec<String>,
    pub(crate) rows: Vec<Vec<String>>,
    /// For each row what was measured.
    pub(crate) runs: Vec<Value>,
    /// What went wrong, with case and tool.
    pub(crate) faults: Vec<String>,
}

impl Sheet {
    /// As Markdown.
    pub(crate) fn markdown(&self) -> String {
        let line = |cells: &[String]| format!("| {} |\n", cells.join(" | "));
        let rule = format!("|{}\n", "---|".repeat(self.head.len()));
        let rows: String = self.rows.iter().map(|row| line(row)).collect();
        format!("### {}\n\n{}\n\n{}{rule}{rows}", self.case, self.title, line(&self.head))
    }

    /// As JSON.
    pub(crate) fn json(&self) -> Value {
        json!({"case": self.case, "over": "link", "title": self.title, "rows": self.runs, "faults": self.faults})
    }
}

/// A number and how often it holds another one, if there is another one.
pub(crate) fn with_ratio(value: f64, best: Option<f64>, digits: usize) -> [String; 2] {
    let ratio = best.filter(|best| *best > 0.0).map_or_else(|| "–".to_owned(), |best| format!("{:.2}", value / best));
    [format!("{value:.digits$}"), ratio]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_sheet_is_a_markdown_table() {
        let texts = |words: &[&str]| words.iter().map(|word| (*word).to_owned()).collect::<Vec<_>>();
        let sheet = Sheet {
            case: "case",
            title: "Title.".into(),
            head: texts(&["tool", "s"]),
            rows: vec![texts(&["x", "1"])],
            runs: vec![],
            faults: vec![],
        };
        assert_eq!(sheet.markdown(), "### case\n\nTitle.\n\n| tool | s |\n|---|---|\n| x | 1 |\n");
        assert_eq!(with_ratio(3.0, Some(2.0), 1), ["3.0", "1.50"]);
        assert_eq!(with_ratio(3.0, None, 0), ["3", "–"]);
    }
}
