//! The overlay as a graph, put together from each member's statement about itself.
//!
//! A link is whole when both ends name it. One that only one end names is new, about to go, or
//! leads to a member that has just gone; it is shown as such.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;

use crate::cli::output::rows_text;
use crate::cli::report::counted;
use crate::model::Endpoint;
use crate::proto::membership::NodeLine;

/// The longest bar of the histogram, in characters.
const BAR_MAX: usize = 40;

/// Links of all members.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Graph {
    nodes: BTreeMap<Endpoint, BTreeSet<Endpoint>>,
}

impl Graph {
    /// The graph of these members.
    pub(super) fn new(lines: &[NodeLine]) -> Self {
        let node = |line: &NodeLine| (line.endpoint, line.neighbors.iter().copied().collect());
        Self { nodes: lines.iter().map(node).collect() }
    }

    fn names(&self, one: Endpoint, other: Endpoint) -> bool {
        self.nodes.get(&one).is_some_and(|neighbors| neighbors.contains(&other))
    }

    /// Every link once, the lower end first, and whether both ends name it.
    pub(super) fn links(&self) -> BTreeMap<(Endpoint, Endpoint), bool> {
        let mut links = BTreeMap::new();
        for (one, neighbors) in &self.nodes {
            for other in neighbors {
                let ends = (*one.min(other), *one.max(other));
                links.insert(ends, self.names(*other, *one));
            }
        }
        links
    }

    /// Number of nodes by their number of neighbors.
    fn histogram(&self) -> BTreeMap<usize, usize> {
        let mut histogram = BTreeMap::new();
        for neighbors in self.nodes.values() {
            *histogram.entry(neighbors.len()).or_default() += 1;
        }
        histogram
    }

    /// In how many parts, without links between them, the members are.
    fn parts(&self) -> usize {
        let mut adjacent: BTreeMap<Endpoint, Vec<Endpoint>> = BTreeMap::new();
        for (one, other) in self.links().into_keys() {
            adjacent.entry(one).or_default().push(other);
            adjacent.entry(other).or_default().push(one);
        }
        let mut seen = BTreeSet::new();
        let mut parts = 0;
        for start in self.nodes.keys() {
            if !seen.insert(*start) {
                continue;
            }
            parts += 1;
            let mut open = vec![*start];
            while let Some(at) = open.pop() {
                let next = adjacent.get(&at).into_iter().flatten();
                open.extend(next.filter(|next| seen.insert(**next)));
            }
        }
        parts
    }

    /// A line a member, wrapped to the columns of a terminal if there is one, and the histogram of
    /// degrees.
    pub(super) fn text(&self, seed: Endpoint, columns: Option<usize>) -> String {
        let links = self.links();
        let one_sided = links.values().filter(|whole| !**whole).count();
        let (nodes, count) = (counted(self.nodes.len(), "peer"), counted(links.len(), "link"));
        let parts = match self.parts() {
            0 | 1 => "all connected".to_owned(),
            parts => format!("in {parts} parts without links between them"),
        };
        let mut text = format!("{nodes}, {count}, {parts}; as {seed} was told\n");
        if one_sided > 0 {
            let _ = writeln!(text, "{one_sided} of the links are named by one end only, marked *");
        }
        text.push_str(&self.histogram_text());
        if !self.nodes.is_empty() {
            text.push('\n');
        }
        let width = self.nodes.keys().map(|it| it.to_string().len()).max().unwrap_or(0);
        let mut rows = Vec::new();
        for (node, neighbors) in &self.nodes {
            let mark = |other: &Endpoint| if self.names(*other, *node) { "" } else { "*" };
            let list: Vec<_> = neighbors.iter().map(|it| format!("{it}{}", mark(it))).collect();
            let head = format!("{node:<width$}  {:>3}", neighbors.len(), node = node.to_string());
            rows.push((head, list.join(" ")));
        }
        let rows: Vec<_> = rows.iter().map(|(head, list)| (head.as_str(), list.clone())).collect();
        text.push_str(&rows_text(&rows, columns));
        text
    }

    fn histogram_text(&self) -> String {
        let histogram = self.histogram();
        let most = histogram.values().copied().max().unwrap_or(1);
        let mut text = String::new();
        if !histogram.is_empty() {
            text.push_str("\nneighbors  peers\n");
        }
        for (degree, count) in histogram {
            // At least one mark for at least one peer.
            let bar = "#".repeat((count * BAR_MAX / most.max(BAR_MAX)).max(1));
            let _ = writeln!(text, "{degree:>9}  {count:>5}  {bar}");
        }
        text
    }

    /// The graph in the language of Graphviz, each link once.
    pub(super) fn dot(&self) -> String {
        let mut text = "graph folkmoot {\n  node [shape=box];\n".to_owned();
        for node in self.nodes.keys() {
            let _ = writeln!(text, "  \"{node}\";");
        }
        for ((one, other), whole) in self.links() {
            let style = if whole { "" } else { " [style=dashed]" };
            let _ = writeln!(text, "  \"{one}\" -- \"{other}\"{style};");
        }
        text.push_str("}\n");
        text
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(port: u16) -> Endpoint {
        Endpoint::new([127, 0, 0, 1].into(), port)
    }

    fn graph(lines: &[(u16, &[u16])]) -> Graph {
        let line = |(port, neighbors): &(u16, &[u16])| NodeLine {
            endpoint: at(*port),
            neighbors: neighbors.iter().map(|port| at(*port)).collect(),
        };
        Graph::new(&lines.iter().map(line).collect::<Vec<_>>())
    }

    #[test]
    fn a_link_is_drawn_once_and_dashed_where_one_end_denies_it() {
        let dot = graph(&[(1, &[2, 3]), (2, &[1]), (3, &[])]).dot();
        assert_eq!(dot.matches("--").count(), 2);
        assert!(dot.contains("\"127.0.0.1:1\" -- \"127.0.0.1:2\";"), "{dot}");
        assert!(dot.contains("\"127.0.0.1:1\" -- \"127.0.0.1:3\" [style=dashed];"), "{dot}");
    }

    #[test]
    fn the_text_counts_links_parts_and_degrees() {
        let text = graph(&[(1, &[2]), (2, &[1]), (3, &[4]), (4, &[3])]).text(at(9), None);
        assert!(text.starts_with("4 peers, 2 links, in 2 parts"), "{text}");
        assert!(text.contains("\n        1      4  ####\n"), "{text}");
        let text = graph(&[(1, &[2]), (2, &[])]).text(at(9), None);
        assert!(text.contains("all connected") && text.contains("127.0.0.1:2*"), "{text}");
        assert!(graph(&[]).text(at(9), None).starts_with("0 peers, 0 links, all connected"));
    }

    #[test]
    fn a_long_list_of_neighbors_goes_on_below_its_beginning() {
        let text = graph(&[(1, &[2, 3, 4]), (2, &[1]), (3, &[1]), (4, &[1])]).text(at(9), Some(50));
        let wrapped =
            "\n127.0.0.1:1    3  127.0.0.1:2 127.0.0.1:3\n                  127.0.0.1:4\n";
        assert!(text.contains(wrapped), "{text}");
    }

    #[test]
    fn a_bar_never_exceeds_its_width() {
        let lines: Vec<NodeLine> = (1..=500)
            .map(|port| NodeLine { endpoint: at(port), neighbors: vec![at(port % 499 + 1)] })
            .collect();
        let text = Graph::new(&lines).histogram_text();
        assert!(text.lines().all(|line| line.matches('#').count() <= BAR_MAX), "{text}");
    }
}
