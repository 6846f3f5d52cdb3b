// The figures ask for themselves every few seconds. While nobody answers they stay as they were, and the page says so.

const stale = document.getElementById('stale')

document.addEventListener('htmx:afterRequest', event => {
  if (event.target.id !== 'figures') return
  const { status } = event.detail.xhr
  stale.hidden = status >= 200 && status < 400
})
