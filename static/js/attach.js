// Images: chosen, pasted or dropped, they are sent up one by one, and stand in the composer until the message goes out.

const form = document.querySelector('[data-composer]')
const input = form.querySelector('[data-attach]')
const list = form.querySelector('[data-attachments]')
const kept = `draft:${form.dataset.person}:${form.dataset.composer}:images`
const KINDS = input.accept.split(',')
const waiting = []

const boxes = () => [...list.querySelectorAll('[data-thumb]')]

input.addEventListener('change', () => {
  const chosen = [...input.files]
  input.value = ''
  take(chosen)
})

form.querySelector('textarea').addEventListener('paste', event => {
  const files = [...event.clipboardData.files]
  if (!files.length || event.clipboardData.types.includes('text/plain')) return
  event.preventDefault()
  take(files)
})

const brings = event => event.dataTransfer?.types.includes('Files')
for (const name of ['dragenter', 'dragover', 'dragleave', 'drop']) {
  document.addEventListener(name, event => {
    if (!brings(event)) return
    event.preventDefault()
    form.toggleAttribute('data-drop', name === 'dragenter' || name === 'dragover')
    if (name === 'drop') take([...event.dataTransfer.files])
  })
}

function take(files) {
  const images = files.filter(file => KINDS.includes(file.type))
  const fitting = images.filter(file => file.size <= Number(input.dataset.mostBytes))
  const room = Number(input.dataset.most) - boxes().length - waiting.length - Number(isSending())
  if (images.length < files.length) say('no-image')
  else if (fitting.length < images.length) say('too-large')
  else if (fitting.length > room) say('too-many')
  else document.getElementById('composer-notice').replaceChildren()
  waiting.push(...fitting.slice(0, Math.max(0, room)))
  sendNext()
}

const isSending = () => form.hasAttribute('data-uploading')

function sendNext() {
  if (isSending() || !waiting.length) return
  const transfer = new DataTransfer()
  transfer.items.add(waiting.shift())
  input.files = transfer.files
  form.setAttribute('data-uploading', '')
  changed()
  window.htmx.trigger(input, 'upload')
}

document.addEventListener('htmx:afterRequest', event => {
  if (event.detail.elt !== input) return
  input.value = ''
  form.removeAttribute('data-uploading')
  const { status } = event.detail.xhr
  if (!status || status >= 500) say(status ? 'fault' : 'network')
  else if (status === 413 && !event.detail.xhr.getResponseHeader('HX-Retarget')) say('too-large')
  changed()
  sendNext()
})
document.addEventListener('htmx:afterSwap', event => {
  if (event.detail.target === list) changed()
})

// What is not ticked any more goes from the composer.
list.addEventListener('change', event => {
  if (!event.target.matches('[data-thumb]')) return
  event.target.closest('li').remove()
  changed()
  form.querySelector('textarea').focus()
})

// What went out stands in the thread now.
document.addEventListener('htmx:afterRequest', event => {
  const { xhr, requestConfig } = event.detail
  if (!/\/(turns|purchases)$/.test(requestConfig?.path ?? '') || xhr.status < 200 || xhr.status >= 400) return
  const gone = requestConfig.formData.getAll('attachment')
  for (const box of boxes()) if (gone.includes(box.value)) box.closest('li').remove()
  changed()
})

document.addEventListener('model', changed)

let shown = ''

function changed() {
  const ids = boxes().map(box => box.value).join(',')
  if (ids) sessionStorage.setItem(kept, ids)
  else sessionStorage.removeItem(kept)
  const model = document.querySelector('input[name=model]:checked')
  const isBlind = model !== null && !model.closest('[data-model]').hasAttribute('data-sees')
  form.toggleAttribute('data-blind', isBlind)
  input.disabled = isBlind
  document.dispatchEvent(new CustomEvent('attachments', { detail: { areOther: ids !== shown } }))
  shown = ids
}

function say(name) {
  document.getElementById('composer-notice').replaceChildren(document.getElementById(`notice-${name}`).content.cloneNode(true))
}

// A reload keeps them.
const before = sessionStorage.getItem(kept)
changed()
if (before && !boxes().length) {
  sessionStorage.setItem(kept, before)
  const query = before.split(',').map(id => `id=${encodeURIComponent(id)}`).join('&')
  document.addEventListener('DOMContentLoaded', () => {
    window.htmx.ajax('GET', `${list.dataset.attachments}?${query}`, { target: list, swap: 'beforeend' })
  })
}
