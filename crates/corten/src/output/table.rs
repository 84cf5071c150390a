//! Aligned columns.

use super::printable;

/// Characters between columns.
const GAP: usize = 3;

/// A table: a heading and rows of the same number of cells.
#[derive(Debug)]
pub struct Table {
    rows: Vec<Vec<String>>,
}

impl Table {
    /// A table with these headings.
    pub fn new<'a>(headings: impl IntoIterator<Item = &'a str>) -> Self {
        Self { rows: vec![headings.into_iter().map(str::to_owned).collect()] }
    }

    /// Adds a row. What would steer a terminal is taken out of its cells.
    pub fn row(&mut self, cells: impl IntoIterator<Item = String>) {
        self.rows.push(cells.into_iter().map(|cell| printable(&cell)).collect());
    }

    /// The table as text, each line with its newline and without space at its
    /// end.
    pub fn render(&self) -> String {
        let columns = self.rows.iter().map(Vec::len).max().unwrap_or(0);
        let width = |column: usize| {
            let cells = self.rows.iter().filter_map(|row| row.get(column));
            cells.map(|cell| cell.chars().count()).max().unwrap_or(0)
        };
        let widths: Vec<usize> = (0..columns).map(width).collect();
        let mut text = String::new();
        for row in &self.rows {
            let mut line = String::new();
            for (cell, width) in row.iter().zip(&widths) {
                line.push_str(cell);
                let missing = width - cell.chars().count() + GAP;
                line.extend(std::iter::repeat_n(' ', missing));
            }
            text.push_str(line.trim_end());
            text.push('\n');
        }
        text
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_are_aligned() {
        let mut table = Table::new(["NAME", "IMAGE", "PORTS"]);
        table.row(["web".into(), "nginx:1".into(), String::new()]);
        table.row(["bøse\n".into(), "x".into(), "80->80/tcp".into()]);
        assert_eq!(
            table.render(),
            "NAME    IMAGE     PORTS\n\
             web     nginx:1\n\
             bøse\u{fffd}   x         80->80/tcp\n"
        );
    }

    #[test]
    fn a_table_may_have_no_rows() {
        assert_eq!(Table::new(["A", "B"]).render(), "A   B\n");
    }
}
