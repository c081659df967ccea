//! The tools that are measured, as command lines.

use std::ffi::OsString;
use std::path::{Path, PathBuf};

/// A tool and the way in which it is called.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Tool {
    /// `driftless sync A B --batch`.
    Driftless(PathBuf),
    /// `cp -a`.
    Cp,
    /// `cp -a -u`: files that are newer, nothing deleted.
    CpUpdate,
    /// `rsync -a`.
    Rsync,
    /// `rsync -a --delete`.
    RsyncDelete,
    /// `rsync -a --checksum`: compares contents.
    RsyncChecksum,
    /// `unison -batch -silent -times`.
    Unison,
    /// The bare walk of both trees.
    Walk,
}

impl Tool {
    /// The name in tables.
    pub(crate) fn name(&self) -> &'static str {
        match self {
            Tool::Driftless(_) => "driftless",
            Tool::Cp => "cp -a",
            Tool::CpUpdate => "cp -a -u",
            Tool::Rsync => "rsync -a",
            Tool::RsyncDelete => "rsync -a --delete",
            Tool::RsyncChecksum => "rsync -a --checksum",
            Tool::Unison => "unison",
            Tool::Walk => "walk",
        }
    }

    /// Is it a program of others that does a job like ours?
    pub(crate) fn is_peer(&self) -> bool {
        !matches!(self, Tool::Driftless(_) | Tool::Walk)
    }

    /// Does it bring the target to the source's state in this version of its call?
    pub(crate) fn deletes(&self) -> bool {
        matches!(self, Tool::Driftless(_) | Tool::RsyncDelete | Tool::Unison)
    }

    /// Program and arguments that bring what changed in `a` to `b`.
    pub(crate) fn command(&self, a: &Path, b: &Path) -> Vec<OsString> {
        let (from, to) = (inside(a, "."), inside(b, ""));
        let flags: &[&str] = match self {
            Tool::Driftless(program) => return words(program, &["sync"], [a.into(), b.into()], &["--batch"]),
            Tool::Walk => {
                let this = std::env::current_exe().unwrap_or_else(|_| "/proc/self/exe".into());
                return words(&this, &["walk"], [a.into(), b.into()], &[]);
            }
            Tool::Unison => {
                let flags = ["-batch", "-silent", "-times", "-ui=text", "-confirmbigdel=false", "-log=false"];
                return words(Path::new("unison"), &[], [a.into(), b.into()], &flags);
            }
            Tool::Cp => &["-a"],
            Tool::CpUpdate => &["-a", "-u"],
            Tool::Rsync => &["-a"],
            Tool::RsyncDelete => &["-a", "--delete"],
            Tool::RsyncChecksum => &["-a", "--checksum"],
        };
        let program = if matches!(self, Tool::Cp | Tool::CpUpdate) { "cp" } else { "rsync" };
        words(Path::new(program), flags, [from, to], &[])
    }
}

fn words(program: &Path, before: &[&str], roots: [OsString; 2], after: &[&str]) -> Vec<OsString> {
    let mut out = vec![program.into()];
    out.extend(before.iter().map(OsString::from));
    out.extend(roots);
    out.extend(after.iter().map(OsString::from));
    out
}

/// `root/` or `root/.`: cp and rsync then mean what is inside, not the directory.
fn inside(root: &Path, last: &str) -> OsString {
    let mut text = root.as_os_str().to_owned();
    text.push("/");
    text.push(last);
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cp_and_rsync_copy_what_is_inside() {
        let text = |tool: Tool| tool.command(Path::new("/a"), Path::new("/b")).join(&OsString::from(" ")).into_string().unwrap();
        assert_eq!(text(Tool::Cp), "cp -a /a/. /b/");
        assert_eq!(text(Tool::RsyncDelete), "rsync -a --delete /a/. /b/");
        assert_eq!(text(Tool::Driftless("d".into())), "d sync /a /b --batch");
    }
}
