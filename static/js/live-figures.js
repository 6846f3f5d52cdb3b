// The figures come by themselves while the page is looked at: a browser has only a few connections to spare. While none
// come, those that stand there stay, and the page says so.

const AGAIN_MS = 5000
const stale = document.getElementById('stale')
let source

function follow() {
  source = new EventSource(document.getElementById('figures').dataset.live)
  source.addEventListener('open', () => { stale.hidden = true })
  source.addEventListener('figures', event => { document.getElementById('figures').outerHTML = event.data })
  source.addEventListener('calls', () => window.htmx.trigger(document.body, 'calls-changed'))
  source.addEventListener('leave', () => location.reload())
  source.addEventListener('error', () => {
    stale.hidden = false
    if (source.readyState === EventSource.CLOSED) setTimeout(look, AGAIN_MS)
  })
}

function look() {
  source?.close()
  if (!document.hidden) follow()
}

document.addEventListener('visibilitychange', look)
look()
