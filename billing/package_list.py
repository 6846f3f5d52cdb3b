"""The packages a shop opens with (S0). For `manage.py seed`; from then on they are the staff's."""

from billing.models import Package

OPENING = (
    Package(slug="starter", name="Starter", tokens=10_000, bonus_tokens=500, price_idr=50_000, position=1),
    Package(
        slug="pro",
        name="Pro",
        tokens=50_000,
        bonus_tokens=5_000,
        price_idr=200_000,
        position=2,
        is_recommended=True,
    ),
    Package(
        slug="business", name="Business", tokens=200_000, bonus_tokens=30_000, price_idr=600_000, position=3
    ),
    Package(
        slug="enterprise",
        name="Enterprise",
        tokens=1_000_000,
        bonus_tokens=200_000,
        price_idr=2_500_000,
        position=4,
    ),
)


def seed() -> int:
    """Add the packages that are missing, by slug; the number of them. What is there stays as the staff left it."""
    present = set(Package.objects.values_list("slug", flat=True))
    missing = [package for package in OPENING if package.slug not in present]
    Package.objects.bulk_create(missing, ignore_conflicts=True)
    return len(missing)
