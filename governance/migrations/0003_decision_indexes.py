
from django.db import migrations, models


class Migration(migrations.Migration):

    dependencies = [
        ('governance', '0002_api_tokens'),
    ]

    operations = [
        migrations.AddIndex(
            model_name='decision',
            index=models.Index(fields=['point', '-at'], name='governance__point_5deee9_idx'),
        ),
        migrations.AddIndex(
            model_name='decision',
            index=models.Index(fields=['bundle_name', 'bundle_digest', 'outcome', 'namespace'], name='governance__bundle__e970de_idx'),
        ),
    ]
