// Charts by keyboard. Every column is a link, so Tab would need as many presses as there are days: here a chart is one
// stop, and arrows walk through its columns.

const KEYS = { ArrowRight: at => at + 1, ArrowLeft: at => at - 1, Home: () => 0, End: (_at, last) => last }

const columnsOf = chart => [...chart.querySelectorAll('.chart__column')]

function stopAt(columns, stop) {
  for (const column of columns) column.setAttribute('tabindex', column === stop ? '0' : '-1')
}

document.addEventListener('keydown', event => {
  const chart = event.target.closest('[data-chart]')
  if (!chart || !KEYS[event.key] || event.ctrlKey || event.metaKey || event.altKey) return
  const columns = columnsOf(chart)
  const last = columns.length - 1
  const to = Math.min(last, Math.max(0, KEYS[event.key](columns.indexOf(document.activeElement), last)))
  stopAt(columns, columns[to])
  columns[to].focus()
  event.preventDefault()
})

for (const chart of document.querySelectorAll('[data-chart]')) {
  const columns = columnsOf(chart)
  stopAt(columns, columns.at(-1))
}
