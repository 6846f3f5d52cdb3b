// Pages for guests: the browser knows the time zone that a new account should have.
const zone = document.querySelector('input[name="time_zone"]')
if (zone && !zone.value) zone.value = Intl.DateTimeFormat().resolvedOptions().timeZone
