"""The addresses of the billing pages."""

from django.urls import path

from billing import views

app_name = "billing"
urlpatterns = [
    path("billing", views.home, name="home"),
    path("billing/packages/<slug:slug>", views.confirm, name="confirm"),
    path("billing/purchases", views.purchases, name="purchases"),
    path("billing/purchases/<str:purchase_id>", views.receipt, name="receipt"),
]
